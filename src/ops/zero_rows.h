// Roots and quotients of stock operators that stay defined for rows of zeros where an eps is zero:
// such a row has the value 0 and the gradient 0, as in our kernels. Differentiable. An eps that
// underflows in float counts as zero.
#pragma once

#include <ATen/core/Tensor.h>

namespace wavroute::ops {

// 1 / sqrt(square + eps); 0 where that is 1 / 0.
[[nodiscard]] at::Tensor inverse_root(const at::Tensor& square, double eps);
// (a + eps) / (b + eps); 0 where that divides by 0.
[[nodiscard]] at::Tensor quotient(const at::Tensor& a, const at::Tensor& b, double eps);
// The matching ratio rho (method.md section 3) of a detail, from its block's mean S^2 and its own
// mean square: the root of quotient(). A constant of every gradient: the caller keeps autograd off.
[[nodiscard]] at::Tensor matching_ratio(const at::Tensor& summary_power, const at::Tensor& power,
                                        double eps);
// gain [d] h [..., d] / sqrt(mean h^2 + eps)
[[nodiscard]] at::Tensor rms_norm(const at::Tensor& h, const at::Tensor& gain, double eps);

}  // namespace wavroute::ops
