// What a model costs: arithmetic and memory, from its sizes alone.
#pragma once

#include <cstdint>

#include "model/training_pass.h"
#include "ops/backend.h"
#include "wavroute/decoder.h"

namespace wavroute {

// Matrix-product FLOPs of one token's forward pass in a sequence of `context` tokens: the
// projections, the output projection, and the causal half of attention.
[[nodiscard]] double forward_flops_per_token(const DecoderSpec& spec, const Residual& residual,
                                             int64_t context);
// Forward and backward: the backward counts twice the forward.
[[nodiscard]] double training_flops_per_token(const DecoderSpec& spec, const Residual& residual);

// How a model is trained, for its memory.
struct TrainingShape {
  Precision precision = Precision::kFp32;
  Recompute recompute = Recompute::kNone;
  ops::BackendKind backend = ops::BackendKind::kComposed;
  int64_t micro_batch = 1;    // rows of a training pass
  int64_t eval_rows = 0;      // rows of an evaluation pass; 0: none
  int64_t sample_tokens = 0;  // of a sample with its prompt; 0: none
  // Bytes of a process that has loaded libtorch and run one product; on a GPU, of its libraries.
  double process = 150e6;
};

// Where a training run's memory goes, in bytes. Passes on our kernels keep their memory for the
// next pass of the same kind, so that evaluation's comes on top of training's.
struct MemoryPlan {
  double parameters = 0;   // values, gradients, moments, copies in the compute type
  double activations = 0;  // kept for the backward of one micro-batch, and its peak
  double evaluation = 0;   // a pass without backward, with its logits; or a sample's cache
  double base = 0;         // the process with its libraries and their scratch
  [[nodiscard]] double total() const { return parameters + activations + evaluation + base; }
};
[[nodiscard]] MemoryPlan plan_memory(const DecoderSpec& spec, const Residual& residual,
                                     int64_t parameter_count, const TrainingShape& shape);

// What a training pass takes, in bytes per token of its micro-batch. MemoryPlan has the sum as
// `activations`, but for the scratch of products, which is in `base`.
struct PassMemory {
  double kept = 0;     // by sublayers, for their backward
  double passing = 0;  // comes and goes with every sublayer; logits and scratch among it
  double stream = 0;   // the residual stream, its gradients among it
  int64_t layers = 1;  // whose `kept` is there at once: all, or those that are recomputed together
};
[[nodiscard]] PassMemory pass_memory(const DecoderSpec& spec, const Residual& residual,
                                     const TrainingShape& shape);

// The largest divisor of `batch` whose plan fits into `available` bytes; 0 where none does.
// shape.micro_batch is ignored.
[[nodiscard]] int64_t largest_micro_batch(const DecoderSpec& spec, const Residual& residual,
                                          int64_t parameter_count, TrainingShape shape,
                                          int64_t batch, double available);

}  // namespace wavroute
