// Matrix products inside a differentiable stream.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/backend.h"

namespace wavroute {

// x w^T, differentiable in both: x [..., k], w [m, k] of one type -> [..., m]. By the back end's
// products of the sublayers.
[[nodiscard]] at::Tensor product(ops::Backend& backend, const at::Tensor& x, const at::Tensor& w);

// a b for every token: a [B,T,m,k], b [B,T,k,n] -> [B,T,m,n].
[[nodiscard]] at::Tensor batched_product(ops::Backend& backend, const at::Tensor& a,
                                         const at::Tensor& b);

}  // namespace wavroute
