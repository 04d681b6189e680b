// One training step: gradients of a batch in micro-batches, the check, clipping, the update.
#pragma once

#include "model/training_pass.h"
#include "train/adamw.h"
#include "train/batch.h"
#include "train/gradient_sum.h"
#include "wavroute/decoder.h"

namespace wavroute {

struct TrainStepResult {
  double loss = 0.0;        // cross-entropy, nats per token, before the update
  double auxiliary = 0.0;   // the scheme's own loss term
  double mean_depth = 0.0;  // layers per token; 0 where the scheme has no such number
  double grad_norm = 0.0;   // before clipping
  bool stop_asked = false;  // of any process, by a signal: filled where there are several
  [[nodiscard]] bool is_finite() const;
};

struct TrainStepPlan {
  int64_t micro_batch = 1;  // rows of one pass; the last may have fewer
  Recompute recompute = Recompute::kNone;
  double clip = 0.0;  // 0: none
  // Of several processes: the rows of all their batches, and who sums their gradients.
  int64_t all_rows = 0;
  GradientSum* sum = nullptr;
};

// Runs a step: with several processes, every one calls it with its own rows, and the result is that
// of all rows. Where the loss or the gradient norm is not finite, nothing is updated: the caller
// looks at is_finite().
[[nodiscard]] TrainStepResult train_step(Decoder& model, AdamW& optimizer, const Batch& batch,
                                         const TrainStepPlan& plan, const Pass& pass, double lr);

}  // namespace wavroute
