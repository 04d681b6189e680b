// Matrix products of a sublayer. In fp32 they are cut into tiles that follow from the shape alone,
// so that no number of threads changes a bit; in bf16 they are libtorch's, whose division depends
// on the threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/memory.h"

namespace wavroute::ops {

// x w^T: x [tokens, n], w [m, n] -> [tokens, m]
[[nodiscard]] at::Tensor project(Memory& memory, const at::Tensor& x, const at::Tensor& w);
// du w: the gradient of x. du [tokens, m] -> [tokens, n]
[[nodiscard]] at::Tensor project_backward(Memory& memory, const at::Tensor& du,
                                          const at::Tensor& w);
// grad += du^T x: the gradient of w, float [m, n].
void add_weight_grad(Memory& memory, const at::Tensor& du, const at::Tensor& x, at::Tensor grad);

}  // namespace wavroute::ops
