// One training step: gradients of a batch in micro-batches, the check, clipping, the update.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "model/training_pass.h"
#include "train/adamw.h"
#include "wavroute/decoder.h"

namespace wavroute {

struct TrainStepResult {
  double loss = 0.0;        // cross-entropy, nats per token, before the update
  double auxiliary = 0.0;   // the scheme's own loss term
  double mean_depth = 0.0;  // layers per token; 0 where the scheme has no such number
  double grad_norm = 0.0;   // before clipping
  [[nodiscard]] bool is_finite() const;
};

struct TrainStepPlan {
  int64_t batch = 1;        // rows of a step
  int64_t micro_batch = 1;  // rows of one pass; the last may have fewer
  int64_t context = 1;
  Recompute recompute = Recompute::kNone;
  double clip = 0.0;  // 0: none
};

// Fills inputs and targets [rows, T] (int64, on the CPU) with rows [begin, end) of the batch.
using FillRows = std::function<void(int64_t begin, int64_t end, std::span<int64_t> inputs,
                                    std::span<int64_t> targets)>;

// Runs a step. Where the loss or the gradient norm is not finite, nothing is updated: the caller
// checks is_finite().
[[nodiscard]] TrainStepResult train_step(Decoder& model, AdamW& optimizer,
                                         const TrainStepPlan& plan, const FillRows& fill,
                                         const Pass& pass, double lr);

}  // namespace wavroute
