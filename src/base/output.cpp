#include "base/output.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio_ext.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

#include "base/printable.h"
#include "base/terminal.h"

namespace wavroute {
namespace {

[[noreturn]] void fail(int error) {
  static int first = 0;  // later failures say only that the stream has failed before
  if (first == 0) first = error;
  error = first;
  if (error == 0) error = reader_is_gone() ? EPIPE : EIO;  // not seen here
  throw std::system_error(error, std::generic_category(), "standard output");
}

// The error number of a failure is in errno.
bool write(std::FILE* stream, std::string_view text) noexcept {
  errno = 0;
  return std::fwrite(text.data(), 1, text.size(), stream) == text.size();
}

}  // namespace

void prepare_streams() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond the limit then fails the call with EFBIG
  for (int number = 0; number <= 2; ++number) {
    if (::fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    // open() takes the lowest free number: those below are open by now. Results are not lost
    // silently: writing to a descriptor opened for reading fails. Output to stderr may be lost.
    static_cast<void>(::open("/dev/null", number == STDERR_FILENO ? O_WRONLY : O_RDONLY));
  }
}

void print(std::string_view text) {
  static const bool terminal = is_terminal(STDOUT_FILENO);
  const bool written = terminal ? write(stdout, terminal_text(text)) : write(stdout, text);
  if (!written) fail(errno);
}

void flush() {
  errno = 0;
  if (std::fflush(stdout) != 0) fail(errno);
}

bool print_or_drop(std::FILE* stream, std::string_view text) noexcept {
  const bool written = write(stream, text);
  const bool flushed = std::fflush(stream) == 0;
  if (written && flushed) return true;
  // Left there, the text and the mark would make every later line look lost, too.
  __fpurge(stream);
  std::clearerr(stream);
  return false;
}

void note(std::string_view line) { print_or_drop(stderr, terminal_text(line) + "\n"); }

void finish_output() {
  flush();
  if (output_failed()) fail(0);
  // A network file system may say only now that its disk is full.
  const int copy = ::dup(STDOUT_FILENO);
  if (copy >= 0 && ::close(copy) != 0 && errno != EINTR) fail(errno);
}

bool output_failed() { return std::ferror(stdout) != 0; }

bool reader_is_gone() {
  pollfd output = {STDOUT_FILENO, POLLOUT, 0};
  return ::poll(&output, 1, 0) == 1 && (output.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace wavroute
