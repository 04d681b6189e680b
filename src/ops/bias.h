// Biases of the projections. No number of threads changes a bit: each column is one thread's.
#pragma once

#include <ATen/core/Tensor.h>

namespace wavroute::ops {

// rows [tokens, m] (float or bfloat16) += bias [m] float, in place; contiguous.
void add_bias(const at::Tensor& rows, const at::Tensor& bias);
// grad [m] float += the sum of the rows of du [tokens, m], in the order of the tokens.
void add_bias_grad(const at::Tensor& du, const at::Tensor& grad);

}  // namespace wavroute::ops
