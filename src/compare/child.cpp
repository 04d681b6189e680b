#include "compare/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <system_error>
#include <thread>

#include "base/affinity.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr size_t kTail = 2000;  // bytes
constexpr int kNotStarted = 127;
constexpr std::chrono::milliseconds kPause(20);

// The handlers of this process are gone after the exec, and a signal that they note before it is
// lost: such a signal must end the child instead. Ignored signals stay ignored (SIGHUP under
// nohup), except SIGPIPE, which this program may ignore for its own output.
void reset_signals(const sigset_t& mask) {
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction action;
    if (sigaction(number, nullptr, &action) != 0) continue;
    if (action.sa_handler == SIG_IGN && number != SIGPIPE) continue;
    action = {};
    action.sa_handler = SIG_DFL;
    sigaction(number, &action, nullptr);
  }
  sigprocmask(SIG_SETMASK, &mask, nullptr);
}

// In the child, between fork and exec: only calls that are safe there. posix_spawn can't tie the
// child's life to this process.
[[noreturn]] void become(char* const* argv, const char* log, pid_t parent, const sigset_t& mask) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(kNotStarted);  // the parent died before the line above
  reset_signals(mask);
  const int input = open("/dev/null", O_RDONLY);
  const int output = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644);
  if (input < 0 || output < 0) _exit(kNotStarted);
  dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execv(argv[0], argv);
  _exit(kNotStarted);
}

// Starts the program and returns its process. Signals are blocked until the child no longer has our
// handlers.
pid_t start(char* const* argv, const char* log) {
  const pid_t parent = getpid();
  sigset_t all, mask;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &mask);
  const OnGivenProcessors whole;
  const pid_t child = fork();
  if (child == 0) become(argv, log, parent, mask);
  const int error = errno;
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  errno = error;
  return child;
}

// Returns the wait status. The first time `stop` returns true, the child gets a SIGTERM.
int wait_for(pid_t child, const std::string& program, const std::function<bool()>& stop) {
  bool told = false;
  int status = 0;
  for (;;) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return status;
    if (ended < 0 && errno != EINTR) {
      throw Failure(
          fmt::format("the end of {} was expected, given: {}", program,
                      std::generic_category().message(errno)),
          "its exit status is lost if SIGCHLD is ignored: start this program without ignoring "
          "that signal");
    }
    if (!told && stop()) {
      kill(child, SIGTERM);
      told = true;
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

ChildResult run_child(const std::vector<std::string>& argv, const std::filesystem::path& log,
                      const std::function<bool()>& stop) {
  std::vector<std::string> words = argv;
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const std::string path = log.string();
  detach_file(log);
  const pid_t child = start(pointers.data(), path.c_str());
  if (child < 0) {
    throw Failure(
        fmt::format("cannot start {}: {}", words[0], std::generic_category().message(errno)),
        "close other programs, or raise the limit on processes");
  }
  const int status = wait_for(child, words[0], stop);
  ChildResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (result.exit_code == kNotStarted) {
    throw Failure(fmt::format("cannot start {} with its output in {}", words[0], path),
                  "both must be there, and the log's folder must be writable");
  }
  // A child that is stopped at once may not have opened it yet.
  const std::string text = std::filesystem::exists(log) ? read_file(log) : "";
  result.error_tail = text.size() > kTail ? text.substr(text.size() - kTail) : text;
  return result;
}

}  // namespace wavroute
