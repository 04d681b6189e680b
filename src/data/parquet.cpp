#include "data/parquet.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/numbers.h"
#include "base/printable.h"
#include "io/child_process.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// Each row is its length in 4 bytes, little-endian, and its bytes. Exit codes: 3 no pyarrow, 4 what
// stderr says of the file. The last line on stderr is for the user.
constexpr const char* kScript = R"(
import struct, sys
try:
    import pyarrow.parquet
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
path, field = sys.argv[1:]
try:
    file = pyarrow.parquet.ParquetFile(path, memory_map=False)
    schema = file.schema_arrow
    if field not in schema.names:
        print("columns " + ", ".join(schema.names[:20]), file=sys.stderr)
        sys.exit(5)
    kind = schema.field(field).type
    is_text = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_binary)
    if not any(check(kind) for check in is_text):
        print(f"a column of {kind}", file=sys.stderr)
        sys.exit(5)
    out = sys.stdout.buffer
    for batch in file.iter_batches(batch_size=256, columns=[field], use_threads=False):
        for value in batch.column(0).to_pylist():
            data = b"" if value is None else value.encode() if isinstance(value, str) else value
            out.write(struct.pack("<I", len(data)))
            out.write(data)
    out.flush()
except BrokenPipeError:
    sys.exit(0)
except (pyarrow.ArrowException, OSError, ValueError) as error:
    print(str(error).replace("\n", " "), file=sys.stderr)
    sys.exit(4)
)";
constexpr int kNoPyarrow = 3, kBadFile = 4, kNoColumn = 5;

struct Pipe {
  Descriptor read, write;
};

Pipe make_pipe() {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw_system_error("make", "a pipe", errno);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

// Reads exactly `size` bytes; false where the pipe ends before the first of them.
bool read_all(const Descriptor& pipe, const StopCheck& is_stopped, char* out, size_t size) {
  size_t filled = 0;
  while (filled < size) {
    wait_for_data(pipe, is_stopped);
    const ssize_t count = ::read(pipe.get(), out + filled, size - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system_error("read", "a pipe", errno);
    if (count == 0) break;
    filled += static_cast<size_t>(count);
  }
  if (filled == size) return true;
  if (filled == 0) return false;
  // A terminal's Ctrl-C ends the child as well.
  if (says_stop(is_stopped)) throw ReadingStopped{};
  throw Failure(expectation("a whole document from the reader of Parquet files", "a part of one"));
}

// What the child said last.
std::string last_line(const Descriptor& errors) {
  std::string text(size_t{1} << 14, '\0');
  const ssize_t count = ::read(errors.get(), text.data(), text.size());
  text.resize(count < 0 ? 0 : static_cast<size_t>(count));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

[[noreturn]] void fail(const ChildProcess& child, const std::string& path,
                       const DocumentFormat& format, const std::string& python,
                       const std::string& said) {
  const std::string where = fmt::format("in {}", path);
  switch (child.exit_code()) {
    case kNoPyarrow:
      throw expected(
          "a Python with pyarrow, which reads Parquet files", fmt::format("'{}' without", python),
          fmt::format("for {}", path),
          "pip install pyarrow there, or set WAVROUTE_PYTHON to a Python that has it; or "
          "write the documents as JSON lines");
    case kBadFile:
      throw expected("a Parquet file", printable(said), where, "copy or download it again");
    case kNoColumn:
      throw expected(fmt::format("a column \"{}\" of strings", format.field), printable(said),
                     where, "--field names the column that holds the text");
    default:
      throw Failure(expectation("the documents of a Parquet file",
                                fmt::format("{}: {}", child.end_in_words(), printable(said)),
                                where));
  }
}

}  // namespace

void read_parquet(const std::string& path, const DocumentFormat& format, const std::string& python,
                  const StopCheck& is_stopped, const OnDocument& on_document) {
  Pipe output = make_pipe(), errors = make_pipe();
  ChildProcess child = [&] {
    try {
      return ChildProcess({.argv = {python, "-c", kScript, path, format.field},
                           .output = output.write.get(),
                           .errors = errors.write.get()});
    } catch (const Failure&) {
      throw expected("a Python with pyarrow, which reads Parquet files",
                     fmt::format("no '{}' that runs", python), fmt::format("for {}", path),
                     "set WAVROUTE_PYTHON to a Python that has pyarrow");
    }
  }();
  output.write.reset();
  errors.write.reset();
  std::string text;
  uint64_t row = 0;
  for (uint32_t length = 0;
       read_all(output.read, is_stopped, reinterpret_cast<char*>(&length), sizeof length);) {
    ++row;
    if (length > format.most_bytes) {
      throw expected(fmt::format("documents of at most {}",
                                 format_bytes(static_cast<double>(format.most_bytes))),
                     "a longer one", fmt::format("in row {} of {}", row, path),
                     "leave this document out, or cut it into several");
    }
    text.resize(length);
    if (length > 0 && !read_all(output.read, is_stopped, text.data(), length)) break;
    if (!on_document({text, path, row, DocumentForm::kParquet})) return;
  }
  child.wait();
  if (child.exit_code() == 0) return;
  if (says_stop(is_stopped)) throw ReadingStopped{};
  fail(child, path, format, python, last_line(errors.read));
}

}  // namespace wavroute
