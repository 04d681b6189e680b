#include "bench/csv.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <span>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// The first `size` bytes, fewer if there are fewer; empty if there is no such file, and for a
// device, which can be written to but has no beginning.
std::string begin_of_file(const std::filesystem::path& file, size_t size) {
  if (!std::filesystem::is_regular_file(file)) return {};
  std::ifstream in(file, std::ios::binary);
  std::string begin(size, '\0');
  in.read(begin.data(), static_cast<std::streamsize>(size));
  begin.resize(static_cast<size_t>(in.gcount()));
  return begin;
}

}  // namespace

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::string csv_cells(const CsvContext& context) {
  return fmt::format("{},{},{},{}", csv_cell(context.date), csv_cell(context.commit),
                     csv_cell(context.machine), context.cores);
}

void append_csv(const std::filesystem::path& file, const std::string& header,
                const std::string& rows) {
  const std::string first_line = header + "\n";
  std::string text;
  const std::string begin = begin_of_file(file, first_line.size());
  if (begin.empty()) {
    text = first_line;
  } else if (begin != first_line) {
    throw UserError(fmt::format("expected a file of benchmark rows, given one that begins with "
                                "'{}', in '{}'",
                                begin.substr(0, begin.find('\n')), file.string()),
                    "name another file: this one is left as it is");
  }
  text += rows;
  const Descriptor out(::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666));
  if (out.get() < 0) throw_system_error("append to", file, errno);
  write_all(out, std::as_bytes(std::span(text)), file);
  // A device that is no file has nothing to make durable.
  if (::fsync(out.get()) != 0 && errno != EINVAL) throw_system_error("save", file, errno);
}

}  // namespace wavroute
