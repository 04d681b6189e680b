// Cross-entropy; its gradient replaces the logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/ids.h"
#include "ops/memory.h"

namespace wavroute::ops {

// The loss summed over the scored tokens, in nats. logits [tokens, V], float or bfloat16, become
// weight * d(sum) / d(logits); targets [tokens] int64, kUnscored where a token is not scored;
// UserError for any other target that is not a column of the logits.
[[nodiscard]] double cross_entropy(Memory& memory, at::Tensor logits, const at::Tensor& targets,
                                   double weight);

}  // namespace wavroute::ops
