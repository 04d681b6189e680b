#include "io/jsonl.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

bool keeps(std::string_view line, int64_t step) {
  try {
    const nlohmann::json object = parse_json(line, "a line");
    if (!object.is_object()) return false;
    const auto found = object.find("step");
    return found == object.end() || !found->is_number() || found->get<double>() <= step;
  } catch (const UserError&) {
    return false;
  }
}

}  // namespace

JsonlWriter::JsonlWriter(const std::filesystem::path& path) : path_(path) {
  detach_file(path);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  file_ = Descriptor(::open(path.c_str(), kFlags, 0666));
  if (file_.get() < 0) throw_system_error("open", path_, errno);
}

void JsonlWriter::append(const nlohmann::ordered_json& object) {
  // JSON has no NaN; the library would write null for it.
  for (const auto& [key, value] : object.items()) {
    if (value.is_number_float() && !std::isfinite(value.get<double>())) {
      throw Failure(fmt::format("a finite {} was expected, {} was given, for {}", key,
                                value.get<double>(), path_.string()));
    }
  }
  const std::string line =
      object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  struct stat before {};
  if (::fstat(file_.get(), &before) != 0) throw_system_error("write", path_, errno);
  try {
    write_all(file_, std::as_bytes(std::span(line)), path_);
  } catch (...) {
    // Best effort: cut_metrics would drop the torn line as well.
    [[maybe_unused]] const int result = ::ftruncate(file_.get(), before.st_size);
    throw;
  }
}

void JsonlWriter::sync() {
  if (::fsync(file_.get()) != 0 && errno != EINVAL) throw_system_error("sync", path_, errno);
}

void cut_metrics(const std::filesystem::path& path, int64_t step) {
  if (!is_there(path)) return;
  const std::string before = read_file(path);
  std::string after;
  for (std::string_view rest = before; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (keeps(line, step)) after.append(line).append("\n");
  }
  if (after != before) write_file_atomic(path, after);
}

}  // namespace wavroute
