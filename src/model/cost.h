// What a model costs: arithmetic and memory, from its sizes alone.
#pragma once

#include <cstdint>

#include "model/training_pass.h"
#include "wavroute/decoder.h"

namespace wavroute {

// Matrix-product FLOPs of one token's forward pass in a sequence of `context` tokens: the
// projections, the output projection, and the causal half of attention.
[[nodiscard]] double forward_flops_per_token(const DecoderSpec& spec, const Residual& residual,
                                             int64_t context);
// Forward and backward: the backward counts twice the forward.
[[nodiscard]] double training_flops_per_token(const DecoderSpec& spec, const Residual& residual);

// Where a training step's memory goes, in bytes.
struct MemoryPlan {
  double parameters = 0;   // values, gradients, moments, copies in the compute type
  double activations = 0;  // what the backward keeps of one micro-batch, and its largest moment
  double base = 0;         // the process with its libraries
  [[nodiscard]] double total() const { return parameters + activations + base; }
};
[[nodiscard]] MemoryPlan plan_memory(const DecoderSpec& spec, const Residual& residual,
                                     int64_t parameter_count, Precision precision,
                                     Recompute recompute, int64_t micro_batch);

// The largest divisor of `batch` whose plan fits into `available` bytes; 0 where none does.
[[nodiscard]] int64_t largest_micro_batch(const DecoderSpec& spec, const Residual& residual,
                                          int64_t parameter_count, Precision precision,
                                          Recompute recompute, int64_t batch, double available);

}  // namespace wavroute
