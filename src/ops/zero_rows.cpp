#include "ops/zero_rows.h"

#include <ATen/ATen.h>

namespace wavroute::ops {
namespace {

bool vanishes(double eps) { return static_cast<float>(eps) == 0.0F; }

}  // namespace

// Masked values are replaced by 1 first: autograd would multiply their gradient 0 by the infinite
// slope at 0.
at::Tensor inverse_root(const at::Tensor& square, double eps) {
  const at::Tensor sum = square + eps;
  if (!vanishes(eps)) return sum.rsqrt();
  const at::Tensor zero = sum == 0;
  return sum.masked_fill(zero, 1.0).rsqrt().masked_fill(zero, 0.0);
}

at::Tensor quotient(const at::Tensor& a, const at::Tensor& b, double eps) {
  const at::Tensor divisor = b + eps;
  if (!vanishes(eps)) return (a + eps) / divisor;
  const at::Tensor zero = divisor == 0;
  return ((a + eps) / divisor.masked_fill(zero, 1.0)).masked_fill(zero, 0.0);
}

at::Tensor matching_ratio(const at::Tensor& summary_power, const at::Tensor& power, double eps) {
  return quotient(summary_power, power, eps).sqrt();
}

at::Tensor rms_norm(const at::Tensor& h, const at::Tensor& gain, double eps) {
  if (!vanishes(eps)) return at::rms_norm(h, gain.sizes(), gain, eps);
  return h * inverse_root(h.square().mean(-1, true), eps) * gain;
}

}  // namespace wavroute::ops
