// Matrix products inside a differentiable stream.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/arena.h"

namespace wavroute {

// x w^T, differentiable in both: x [..., k], w [m, k] of one type -> [..., m]. On our kernels
// (`arena` not null) by the products of the sublayers (ops/products.h), whose bits no number of
// threads changes; else by stock operators.
[[nodiscard]] at::Tensor product(ops::Arena* arena, const at::Tensor& x, const at::Tensor& w);

// a b for every token: a [B,T,m,k], b [B,T,k,n] -> [B,T,m,n]. On our kernels by chunks of tokens,
// for the same reason.
[[nodiscard]] at::Tensor batched_product(ops::Arena* arena, const at::Tensor& a,
                                         const at::Tensor& b);

}  // namespace wavroute
