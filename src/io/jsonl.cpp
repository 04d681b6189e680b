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
#include <system_error>

#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// Null for what is no JSON: a torn line, a damaged file.
nlohmann::json row_of(const JsonlLine& line) {
  try {
    return parse_json(line.text, "a line");
  } catch (const UserError&) {
    return nullptr;
  }
}

bool keeps(const JsonlLine& line, int64_t step) {
  const nlohmann::json row = row_of(line);
  if (!row.is_object()) return false;
  const auto found = row.find("step");
  return found == row.end() || !found->is_number() || found->get<double>() <= step;
}

}  // namespace

JsonlWriter::JsonlWriter(const std::filesystem::path& path) : path_(path) {
  detach_file(path);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  file_ = Descriptor(::open(path.c_str(), kFlags, 0666));
  if (file_.get() < 0) throw_system_error("open", path_, errno);
}

void JsonlWriter::append(const nlohmann::ordered_json& object) {
  if (file_.get() < 0) return;
  // JSON has no NaN; the library would write null for it.
  for (const auto& [key, value] : object.items()) {
    if (value.is_number_float() && !std::isfinite(value.get<double>())) {
      throw Failure(expectation("a finite " + key, value.get<double>(), "for " + path_.string()));
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
  if (file_.get() < 0) return;
  if (::fsync(file_.get()) != 0 && errno != EINVAL) throw_system_error("sync", path_, errno);
}

std::vector<JsonlLine> jsonl_lines(std::string_view text) {
  std::vector<JsonlLine> lines;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const JsonlLine line{text.substr(0, end), ++number, end != std::string_view::npos};
    text.remove_prefix(std::min(text.size(), line.text.size() + 1));
    if (line.text.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back(line);
  }
  return lines;
}

MetricsTotals metrics_totals(const std::filesystem::path& path) {
  MetricsTotals totals;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return totals;
  const std::string text = read_file(path);
  for (const JsonlLine& line : jsonl_lines(text)) {
    const nlohmann::json row = row_of(line);
    if (!row.is_object() || !row.contains("step_ms") || !row["step_ms"].is_number()) continue;
    totals.ms += row["step_ms"].get<double>();
    totals.steps += 1;
    if (row.contains("peak_rss_bytes")) {
      totals.peak_bytes =
          std::max(totals.peak_bytes, json_integer(row["peak_rss_bytes"]).value_or(0));
    }
  }
  return totals;
}

void cut_metrics(const std::filesystem::path& path, int64_t step) {
  if (!is_there(path)) return;
  const std::string before = read_file(path);
  std::string after;
  for (const JsonlLine& line : jsonl_lines(before)) {
    if (keeps(line, step)) after.append(line.text).append("\n");
  }
  if (after != before) write_file_atomic(path, after);
}

}  // namespace wavroute
