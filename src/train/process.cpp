#include "train/process.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace wavroute {
namespace {

constexpr int kInterruptedExit = 130;
// A signal handler can reach only globals.
std::atomic<int> first_signal = 0;

// A terminal and a parent may both deliver one Ctrl-C: a second signal this soon is the same
// request.
std::atomic<int64_t> same_request = 500'000'000;  // ns
std::atomic<int64_t> first_request = 0;
std::atomic<bool> stays = false;

int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

extern "C" void on_stop_signal(int number) {
  const int64_t now = monotonic_ns();
  int none = 0;
  if (first_signal.compare_exchange_strong(none, number)) {
    first_request = now;
  } else if (number != SIGHUP && now - first_request > same_request) {
    _exit(kInterruptedExit);
  }
}

}  // namespace

StopSignal::StopSignal() {
  first_signal = 0;
  for (size_t i = 0; i < kStopSignals.size(); ++i) {
    ::sigaction(kStopSignals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler == SIG_IGN) continue;  // nohup; a shell's "command &"
    struct sigaction action {};
    action.sa_handler = on_stop_signal;
    action.sa_flags = SA_RESTART;
    ::sigaction(kStopSignals[i], &action, nullptr);
  }
}

StopSignal::~StopSignal() {
  if (stays) return;
  for (size_t i = 0; i < kStopSignals.size(); ++i) {
    ::sigaction(kStopSignals[i], &before_[i], nullptr);
  }
}

bool StopSignal::requested() noexcept { return first_signal != 0; }
void StopSignal::stay() noexcept { stays = true; }
void StopSignal::set_same_request(double seconds) noexcept {
  same_request = static_cast<int64_t>(seconds * 1e9);
}
int StopSignal::first() noexcept { return first_signal; }

}  // namespace wavroute
