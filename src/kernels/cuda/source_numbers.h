// The scalars of one token's finished sum. Included by kernel sources only.
#pragma once

#include "kernels/cuda/device.h"

namespace wavroute::kernels::cuda {

struct SourceNumbers {
  float ratio, inverse;  // of SourceScalars
};

// From the mean squares of V and of S; a summary is not matched. A row of zeros with eps = 0 gets
// zero instead of 0/0 or x/0: its logit is its bias, and it adds nothing.
WAVROUTE_DEVICE SourceNumbers source_numbers(double mean, double summary, bool is_summary,
                                             double matching_eps, double norm_eps) {
  double matched = 1.0;  // ratio^2
  if (!is_summary) {
    const double detail = mean + matching_eps;
    matched = detail == 0.0 ? 0.0 : (summary + matching_eps) / detail;
  }
  const double square = matched * mean + norm_eps;
  return {static_cast<float>(sqrt(matched)),
          square == 0.0 ? 0.0F : static_cast<float>(1.0 / sqrt(square))};
}

}  // namespace wavroute::kernels::cuda
