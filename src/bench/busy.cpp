#include "bench/busy.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/affinity.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

// In the child, where only calls that are safe after a fork of several threads are allowed.
[[noreturn]] void be_busy(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // the parent died before the line above
  raise(SIGSTOP);
  for (;;) asm volatile("");
}

void wait_until_stopped(pid_t process) {
  int status = 0;
  while (waitpid(process, &status, WUNTRACED) < 0 && errno == EINTR) {
  }
  if (WIFSTOPPED(status)) return;
  throw Failure("a busy process was expected to stop, it has ended");
}

}  // namespace

BusyProcesses::BusyProcesses(int count) {
  const pid_t parent = getpid();
  const OnGivenProcessors whole;
  try {
    for (int i = 0; i < count; ++i) {
      const pid_t process = fork();
      if (process == 0) be_busy(parent);
      if (process < 0) {
        throw Failure(fmt::format("{} busy processes were expected to start, {} did: {}", count, i,
                                  std::strerror(errno)),
                      "close other programs, or raise the limit on processes");
      }
      processes_.push_back(process);
    }
    for (const pid_t process : processes_) wait_until_stopped(process);
  } catch (...) {
    end();
    throw;
  }
}

BusyProcesses::~BusyProcesses() { end(); }

void BusyProcesses::resume() {
  for (const pid_t process : processes_) kill(process, SIGCONT);
}

void BusyProcesses::pause() {
  for (const pid_t process : processes_) kill(process, SIGSTOP);
  for (const pid_t process : processes_) wait_until_stopped(process);
}

void BusyProcesses::end() noexcept {
  for (const pid_t process : processes_) kill(process, SIGKILL);
  for (const pid_t process : processes_) {
    while (waitpid(process, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  processes_.clear();
}

}  // namespace wavroute
