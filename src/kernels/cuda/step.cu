#include "kernels/cuda/step.h"

#include "kernels/cuda/device.h"

namespace wavroute::kernels::cuda {
namespace {

WAVROUTE_DEVICE bool is_finite(double x) { return x - x == 0.0; }

WAVROUTE_KERNEL judge(const StepInput* input, const StepSums* sums, const double* squares,
                      int64_t groups, AdamwScalars* scalars, StepOutcome* outcome) {
  if (thread() != 0) return;
  double square = 0.0;
  for (int64_t g = 0; g < groups; ++g) square += squares[g];
  // Beyond this the second moment, a float, could not hold a square.
  const double norm =
      square > 3.4028234663852886e38 ? static_cast<double>(infinity()) : sqrt(square);
  const bool good = scalars->is_finite != 0 && is_finite(sums->loss) &&
                    is_finite(sums->auxiliary) && is_finite(norm);
  const bool clips = input->clip > 0.0 && norm > input->clip;
  scalars->lr = static_cast<float>(input->lr);
  scalars->correction1 = input->correction1;
  scalars->correction2 = input->correction2;
  scalars->grad_scale = clips ? static_cast<float>(input->clip / norm) : 1.0F;
  scalars->is_finite = good ? 1 : 0;
  outcome->sums = *sums;
  outcome->grad_norm = norm;
  outcome->is_finite = good ? 1 : 0;
}

}  // namespace

void judge_step(const StepInput* input, const StepSums* sums, const double* squares, int64_t groups,
                AdamwScalars* scalars, StepOutcome* outcome, Stream stream) {
  launch(judge, {1, kWarp, 0}, stream, input, sums, squares, groups, scalars, outcome);
}

}  // namespace wavroute::kernels::cuda
