// What a model asks of the device that it is on: memory, an end to waiting, the speed of a matrix
// product.
#pragma once

#include <cstdint>

#include "wavroute/decoder.h"

namespace wavroute {

// The most memory that this process has held, bytes: its own (VmHWM) for a model on the processor,
// that of the GPU for a model on one.
[[nodiscard]] int64_t peak_memory_bytes(at::Device device);

// Waits until `device` has done all that it was given.
void wait_for(at::Device device);

// FLOP/s of the best of a few matrix products of the sizes that a model of this width multiplies,
// with the current number of threads.
[[nodiscard]] double measure_product_peak(Precision precision, const ModelConfig& model,
                                          int64_t tokens, at::Device device);

}  // namespace wavroute
