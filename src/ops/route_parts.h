// The backward of a read for a graph that wants the gradients of parts and of phase 1's result,
// where a stream collects those of forms and keeps the group's (ops/route.h).
#pragma once

#include "ops/route.h"

namespace wavroute::ops {

// d part_k = sum over forms f of sign_of(f, k) d form_f, and what later readers sent to the written
// part.
struct PartGrads {
  at::Tensor forms;                         // [forms, tokens, d] float, scratch
  std::array<at::Tensor, kMostParts> part;  // by place, [tokens, d] float; undefined: not wanted
  int64_t written = -1;                     // the part that was written before the read; -1: none
  at::Tensor later;  // [tokens, d] float, of the written part; undefined: nothing came
  at::Tensor u;      // [tokens, d] in the compute type, of the update; undefined: not wanted
};

// Phase 1 as an input of its own: mixed = o, with peak m a constant. The group's `along` becomes
// the gradient of mass, - along exp(m - lse).
struct MixedGrad {
  at::Tensor peak;  // [tokens]
  at::Tensor grad;  // [tokens, d] float, = dh exp(m - lse); may be the group's dh
};

// `read` without forms and du, of a group of one router.
void read_backward_to_parts(const RunningReadBackward& read, const PartGrads& split,
                            const MixedGrad& mixed);

}  // namespace wavroute::ops
