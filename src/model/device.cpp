#include "model/device.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <string>

#include "ops/backend.h"

namespace wavroute {

int64_t peak_memory_bytes(at::Device device) {
  if (!device.is_cpu()) {
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return at::accelerator::getDeviceStats(device.index()).reserved_bytes[all].peak;
  }
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

void wait_for(at::Device device) {
  if (!device.is_cpu()) at::accelerator::synchronizeDevice(device.index());
}

std::string why_no_gpu_kernels() { return ops::why_no_cuda_backend(); }

double measure_product_peak(Precision precision, const ModelConfig& model, int64_t tokens,
                            at::Device device) {
  const at::NoGradGuard no_grad;
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kBudget(60);  // per shape
  constexpr std::chrono::milliseconds kReading(5);  // hides what a wait for a device costs
  // Larger products are no faster, but take gigabytes and minutes.
  constexpr int64_t kWide = 4096, kHidden = 8192, kTokens = 8192;
  const int64_t d = std::min(model.width, kWide);
  const int64_t hidden = std::min(model.hidden > 0 ? model.hidden : 4 * d, kHidden);
  tokens = std::min(tokens, kTokens);
  const auto options = at::TensorOptions().dtype(compute_type(precision)).device(device);
  double best = 0.0;
  for (const auto& [inner, outer] : {std::array{d, 2 * hidden}, std::array{hidden, d}}) {
    const at::Tensor x = at::randn({tokens, inner}, options.dtype(at::kFloat)).to(options.dtype());
    const at::Tensor w = at::randn({outer, inner}, options.dtype(at::kFloat)).to(options.dtype());
    const double flops = 2.0 * static_cast<double>(tokens * inner * outer);
    int64_t products = 1;  // of a reading of the clock
    const auto multiply = [&] {
      for (int64_t i = 0; i < products; ++i) static_cast<void>(at::linear(x, w));
      wait_for(device);
    };
    multiply();  // the first one also sets up its library
    const auto start = Clock::now();
    while (Clock::now() - start < kBudget) {
      const auto begin = Clock::now();
      multiply();
      const auto taken = Clock::now() - begin;
      const double seconds = std::chrono::duration<double>(taken).count();
      best = std::max(best, static_cast<double>(products) * flops / seconds);
      if (!device.is_cpu() && taken < kReading) products *= 2;
    }
  }
  return best;
}

}  // namespace wavroute
