// What a model asks of the device that it is on: memory, an end to waiting, the speed of a matrix
// product.
#pragma once

#include <cstdint>
#include <string>

#include "wavroute/decoder.h"

namespace wavroute {

// The most memory that this process has held, bytes: its own (VmHWM) for a model on the processor,
// that of the GPU for a model on one.
[[nodiscard]] int64_t peak_memory_bytes(at::Device device);

// Waits until `device` has done all that it was given.
void wait_for(at::Device device);

// What this build lacks to run our kernels on a GPU, in words; empty: nothing.
[[nodiscard]] std::string why_no_gpu_kernels();

// FLOP/s of the best of a few matrix products of the sizes that a model of this width multiplies,
// with the current number of threads.
[[nodiscard]] double measure_product_peak(Precision precision, const ModelConfig& model,
                                          int64_t tokens, at::Device device);

}  // namespace wavroute
