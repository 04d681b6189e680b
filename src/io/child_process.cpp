#include "io/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "base/affinity.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using std::chrono::milliseconds;

constexpr int kNotStarted = 127;
constexpr milliseconds kPause(10);

std::string words_of_error(int number) { return std::generic_category().message(number); }

// "NAME=value" of this process' environment without `unset`, with `env` in place of its own names.
std::vector<std::string> environment_of(const ProgramStart& start) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry, name = text.substr(0, text.find('='));
    if (!start.env.contains(name) && std::ranges::count(start.unset, name) == 0) {
      merged.push_back(text);
    }
  }
  for (const auto& [name, value] : start.env) merged.push_back(fmt::format("{}={}", name, value));
  return merged;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction action;
    if (sigaction(number, nullptr, &action) != 0) continue;
    if (action.sa_handler == SIG_IGN && number != SIGPIPE) continue;
    action = {};
    action.sa_handler = SIG_DFL;
    sigaction(number, &action, nullptr);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// In the child: ends with its parent.
void tie_to(pid_t parent, int signal) {
  prctl(PR_SET_PDEATHSIG, signal);
  if (getppid() != parent) _exit(kNotStarted);  // it died before the line above
}

struct Exec {
  char* const* argv;
  char* const* environment;
  std::array<int, 3> streams;
  int report;  // receives the number of an error; closed by the exec
};

// In the child, between fork and exec: only calls that are safe there. posix_spawn can't tie the
// child's life to this process.
[[noreturn]] void become(const Exec& exec, pid_t parent) {
  tie_to(parent, SIGTERM);
  reset_signals();
  const int report = fcntl(exec.report, F_DUPFD_CLOEXEC, 3);
  // The streams go through copies: one of them may have the number of another's place.
  std::array<int, 3> copies{};
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (size_t i = 0; i < copies.size(); ++i) {
    const int from = exec.streams[i] < 0 ? null : exec.streams[i];
    copies[i] = fcntl(from, F_DUPFD_CLOEXEC, 3);
  }
  bool ready = true;
  for (size_t i = 0; i < copies.size(); ++i) {
    ready = ready && copies[i] >= 0 && dup2(copies[i], static_cast<int>(i)) >= 0;
  }
  if (ready) execvpe(exec.argv[0], exec.argv, exec.environment);
  const int error = errno;
  [[maybe_unused]] const ssize_t told = write(report, &error, sizeof error);
  _exit(kNotStarted);
}

// Forks with all signals blocked, so that none meets our handlers in the child before it has
// forgotten them; the child gets the mask of before.
pid_t fork_in_peace(sigset_t& before) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t child = fork();
  const int error = errno;
  if (child != 0) sigprocmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return child;
}

[[noreturn]] void fail_to_fork(const std::string& name, int error) {
  throw Failure(expectation(name + " to start", words_of_error(error)),
                "close other programs, or raise the limit on processes");
}

}  // namespace

ChildProcess::ChildProcess(const ProgramStart& start) {
  std::vector<std::string> argv = start.argv, environment = environment_of(start);
  if (argv.empty()) argv.emplace_back();
  name_ = argv[0];
  std::vector<char*> argv_pointers = pointers(argv), environment_pointers = pointers(environment);
  std::array<int, 2> ends{-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Failure(expectation(name_ + " to start", words_of_error(errno)));
  }
  const Descriptor told(ends[0]);
  Descriptor report(ends[1]);
  const Exec exec{argv_pointers.data(),
                  environment_pointers.data(),
                  {start.input, start.output, start.errors},
                  report.get()};
  const pid_t parent = getpid();
  const OnGivenProcessors whole;  // the child never comes to its end
  sigset_t before;
  id_ = fork_in_peace(before);
  if (id_ == 0) become(exec, parent);
  if (id_ < 0) fail_to_fork(name_, errno);
  report.reset();
  int error = 0;
  ssize_t count = 0;
  while ((count = read(told.get(), &error, sizeof error)) < 0 && errno == EINTR) {
  }
  if (count != sizeof error) return;  // closed by the exec
  kill();
  throw Failure(
      expectation("a program that starts", fmt::format("'{}': {}", name_, words_of_error(error))));
}

ChildProcess::ChildProcess(const std::function<int()>& action) : name_("a copy of this process") {
  const pid_t parent = getpid();
  const OnGivenProcessors whole;
  sigset_t before;
  id_ = fork_in_peace(before);
  if (id_ < 0) fail_to_fork(name_, errno);
  if (id_ > 0) return;
  sigprocmask(SIG_SETMASK, &before, nullptr);
  tie_to(parent, SIGKILL);
  int code = 1;
  try {
    code = action();
  } catch (...) {
    // The exit code says so.
  }
  _exit(code);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : id_(std::exchange(other.id_, -1)),
      name_(std::move(other.name_)),
      ended_(std::exchange(other.ended_, true)),
      status_(other.status_) {}

void ChildProcess::send(int signal) const noexcept {
  if (!ended_ && id_ > 0) ::kill(id_, signal);
}

void ChildProcess::kill() noexcept {
  if (ended_ || id_ < 0) return;
  ::kill(id_, SIGKILL);
  while (waitpid(id_, &status_, 0) < 0 && errno == EINTR) {
  }
  ended_ = true;
}

// True once it has ended.
bool ChildProcess::reap(int options) {
  if (ended_) return true;
  const pid_t changed = waitpid(id_, &status_, options);
  if (changed < 0 && errno != EINTR) {
    const int error = errno;
    ended_ = true;
    throw Failure(expectation(fmt::format("to hear how {} ended", name_), words_of_error(error)),
                  "how it ended is lost where SIGCHLD is ignored: whoever starts this program "
                  "must not ignore it");
  }
  ended_ = changed == id_ && !WIFSTOPPED(status_);
  return ended_;
}

void ChildProcess::wait() {
  while (!reap(0)) {
  }
}

bool ChildProcess::wait_for(milliseconds time) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  while (!reap(WNOHANG)) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

bool ChildProcess::wait_until_stopped() {
  status_ = 0;
  while (!reap(WUNTRACED)) {
    if (WIFSTOPPED(status_)) return true;
  }
  return false;
}

int ChildProcess::signal() const noexcept { return WIFSIGNALED(status_) ? WTERMSIG(status_) : 0; }

int ChildProcess::exit_code() const noexcept {
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + signal();
}

std::string ChildProcess::end_in_words() const {
  if (signal() != 0) {
    return fmt::format("the process was ended by signal {} ({})", signal(), strsignal(signal()));
  }
  return fmt::format("the process ended with exit status {}", exit_code());
}

}  // namespace wavroute
