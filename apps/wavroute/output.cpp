#include "output.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <system_error>

#include "base/print.h"
#include "base/printable.h"
#include "base/terminal.h"

namespace wavroute::app {
namespace {

[[noreturn]] void fail(int error) {
  if (error == 0) error = reader_is_gone() ? EPIPE : EIO;  // failed earlier, the number is lost
  throw std::system_error(error, std::generic_category(), "standard output");
}

void write(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) < text.size()) fail(errno);
}

}  // namespace

void prepare_streams() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond the limit is an error of the call, EFBIG
  for (int number = 0; number <= 2; ++number) {
    if (::fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    // open() takes the lowest free number: those below are open by now. A result is not lost in
    // silence: writing to a descriptor for reading fails. What goes to stderr may be.
    static_cast<void>(::open("/dev/null", number == STDERR_FILENO ? O_WRONLY : O_RDONLY));
  }
}

void print(std::string_view text) {
  static const bool terminal = is_terminal(STDOUT_FILENO);
  if (terminal) {
    write(terminal_text(text));
  } else {
    write(text);
  }
}

void flush() {
  errno = 0;
  if (std::fflush(stdout) != 0) fail(errno);
}

void note(std::string_view line) { print_or_drop(stderr, terminal_text(line) + "\n"); }

void finish_output() {
  flush();  // before std::cout, which would keep the reason to itself
  std::cout.flush();
  if (std::ferror(stdout) != 0 || std::cout.bad()) fail(0);
  // A network file system may say only now that its disk is full.
  const int copy = ::dup(STDOUT_FILENO);
  if (copy >= 0 && ::close(copy) != 0 && errno != EINTR) fail(errno);
}

bool output_failed() { return std::ferror(stdout) != 0; }

bool reader_is_gone() {
  pollfd output = {STDOUT_FILENO, POLLOUT, 0};
  return ::poll(&output, 1, 0) == 1 && (output.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace wavroute::app
