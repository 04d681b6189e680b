// What ends a training step on a GPU without the host: the gradients' norm, whether everything is
// finite, the clipping, and the numbers of the update. All pointers lead to its memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/elementwise.h"

namespace wavroute::kernels::cuda {

// What the host gives a step.
struct StepInput {
  double lr = 0.0;
  double clip = 0.0;                             // the largest norm of the gradients; 0: any
  float correction1 = 1.0F, correction2 = 1.0F;  // of AdamwScalars
};
// The loss and what goes with it, summed over micro-batches.
struct StepSums {
  double loss = 0.0, auxiliary = 0.0, mean_depth = 0.0;
};
// What the host reads when it comes to it.
struct StepOutcome {
  StepSums sums;
  double grad_norm = 0.0;  // before clipping; infinite where a float cannot hold its square
  int64_t is_finite = 0;   // 0: this step or one before it was not, and nothing was updated
};

// From squares [groups], the sums of the gradients' squares. scalars->is_finite stays 0 once it is.
void judge_step(const StepInput* input, const StepSums* sums, const double* squares, int64_t groups,
                AdamwScalars* scalars, StepOutcome* outcome, Stream stream);

}  // namespace wavroute::kernels::cuda
