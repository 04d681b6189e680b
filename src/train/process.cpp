#include "train/process.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <string>

namespace wavroute {
namespace {

constexpr int kInterruptedExit = 130;
std::atomic<bool> stop_requested = false;  // a signal handler reaches nothing else

// A terminal and a parent may both pass on one Ctrl-C: what comes this soon is the same request.
constexpr int64_t kSameRequest = 500'000'000;  // ns
std::atomic<int64_t> first_request = 0;

int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

extern "C" void on_stop_signal(int) {
  const int64_t now = monotonic_ns();
  if (!stop_requested.exchange(true)) {
    first_request = now;
  } else if (now - first_request > kSameRequest) {
    _exit(kInterruptedExit);
  }
}

}  // namespace

StopSignal::StopSignal() {
  stop_requested = false;
  std::signal(SIGINT, on_stop_signal);
  std::signal(SIGTERM, on_stop_signal);
}

StopSignal::~StopSignal() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool StopSignal::requested() noexcept { return stop_requested; }

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

double measure_product_peak(Precision precision, const ModelConfig& model, int64_t tokens,
                            at::Device device) {
  const at::NoGradGuard no_grad;
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kBudget(60);  // per shape
  const int64_t d = model.width, hidden = model.hidden > 0 ? model.hidden : 4 * d;
  const auto options = at::TensorOptions().dtype(compute_type(precision)).device(device);
  double best = 0.0;
  for (const auto& [inner, outer] : {std::array{d, 2 * hidden}, std::array{hidden, d}}) {
    const at::Tensor x = at::randn({tokens, inner}, options.dtype(at::kFloat)).to(options.dtype());
    const at::Tensor w = at::randn({outer, inner}, options.dtype(at::kFloat)).to(options.dtype());
    const double flops = 2.0 * static_cast<double>(tokens * inner * outer);
    const auto start = Clock::now();
    while (Clock::now() - start < kBudget) {
      const auto begin = Clock::now();
      const at::Tensor y = at::linear(x, w);
      if (!device.is_cpu()) static_cast<void>(y[0][0].item());  // waits for the device
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      best = std::max(best, flops / seconds);
    }
  }
  return best;
}

}  // namespace wavroute
