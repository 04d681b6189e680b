// What a run needs from its process: signals, memory, speed of a matrix product.
#pragma once

#include <array>
#include <csignal>
#include <cstdint>

#include "wavroute/decoder.h"

namespace wavroute {

// From its construction on, the first SIGINT, SIGTERM or SIGHUP only sets a mark; a second SIGINT
// or SIGTERM ends the process at once (a terminal that closes may send SIGHUP twice). A signal that
// was ignored stays so: SIGHUP under nohup, SIGINT of a background job in a script.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  [[nodiscard]] static bool requested() noexcept;

 private:
  static constexpr std::array kStopSignals = {SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kStopSignals.size()> before_{};
};

// The most memory that this process has held, bytes: its own (VmHWM) for a model on the processor,
// that of the GPU for a model on one.
[[nodiscard]] int64_t peak_memory_bytes(at::Device device);

// Waits until `device` has finished all its work.
void wait_for(at::Device device);

// FLOP/s of the best of a few matrix products of the sizes that a model of this width multiplies,
// with the current number of threads.
[[nodiscard]] double measure_product_peak(Precision precision, const ModelConfig& model,
                                          int64_t tokens, at::Device device);

}  // namespace wavroute
