#include "bench/csv.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <span>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// The first `size` bytes, fewer if there are fewer; empty if there is no such file, and for a
// device, which can be written to but not read.
std::string begin_of_file(const std::filesystem::path& file, size_t size) {
  if (!std::filesystem::is_regular_file(file)) return {};
  std::ifstream in(file, std::ios::binary);
  std::string begin(size, '\0');
  in.read(begin.data(), static_cast<std::streamsize>(size));
  begin.resize(static_cast<size_t>(in.gcount()));
  return begin;
}

// The text of a file with fewer columns, with empty cells in the missing ones.
std::string with_columns(const std::string& text, const std::string& header) {
  const size_t end = text.find('\n');
  const auto missing =
      std::count(header.begin() + static_cast<std::ptrdiff_t>(end), header.end(), ',');
  std::string wider = header + "\n";
  bool quoted = false;
  for (const char c : text.substr(end + 1)) {
    quoted = quoted != (c == '"');  // a newline within quotes is part of a cell
    if (c == '\n' && !quoted) wider.append(static_cast<size_t>(missing), ',');
    wider += c;
  }
  return wider;
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
  const std::string first = begin.substr(0, begin.find('\n'));
  if (begin.empty()) {
    text = first_line;
  } else if (begin.size() > first.size() && header.starts_with(first + ",")) {
    write_file_atomic(followed_link(file), with_columns(read_file(file), header));
  } else if (begin != first_line) {
    throw expected("a file of benchmark rows", fmt::format("one that begins with '{}'", first),
                   fmt::format("in '{}'", file.string()),
                   "name another file: this one is not changed");
  }
  text += rows;
  const Descriptor out(::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666));
  if (out.get() < 0) throw_system_error("append to", file, errno);
  write_all(out, std::as_bytes(std::span(text)), file);
  // A device has nothing to make durable.
  if (::fsync(out.get()) != 0 && errno != EINVAL) throw_system_error("save", file, errno);
}

}  // namespace wavroute
