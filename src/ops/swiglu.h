// a = silu(gate) * up (method.md section 1).
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/memory.h"

namespace wavroute::ops {

// gate_up [tokens, 2 hidden], float or bfloat16 -> a [tokens, hidden]
[[nodiscard]] at::Tensor swiglu(Memory& memory, const at::Tensor& gate_up);
// In place: gate_up becomes its gradient, da becomes a.
void swiglu_backward(at::Tensor gate_up, at::Tensor da);

}  // namespace wavroute::ops
