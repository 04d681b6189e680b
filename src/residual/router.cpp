#include "residual/router.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <vector>

namespace wavroute {

at::Tensor mix(std::span<const Source> sources, const Router& router, double eps,
               at::Tensor* weights) {
  const at::Tensor query = router.query->value.view({-1}) * router.gain->value;  // q = w * g
  std::vector<at::Tensor> logits;
  logits.reserve(sources.size());
  for (const Source& source : sources) {
    const at::Tensor inverse_rms = source.value.square().mean(-1).add(eps).rsqrt();
    at::Tensor logit = at::matmul(source.value, query) * inverse_rms;
    if (source.basis >= 0) logit = logit + router.bias->value[source.basis];
    logits.push_back(std::move(logit));
  }
  const at::Tensor a = at::softmax(at::stack(logits), 0).unsqueeze(-1);  // [sources, B, T, 1]
  at::Tensor h = a[0] * sources[0].value;
  for (size_t j = 1; j < sources.size(); ++j) {
    h = at::addcmul(h, a[static_cast<int64_t>(j)], sources[j].value);
  }
  if (weights != nullptr) *weights = a.squeeze(-1);
  return h;
}

at::Tensor matching_ratio(const at::Tensor& detail, const at::Tensor& summary, double eps) {
  const at::NoGradGuard no_grad;
  const auto power = [eps](const at::Tensor& v) { return v.square().mean(-1, true).add(eps); };
  return (power(summary) / power(detail)).sqrt();
}

}  // namespace wavroute
