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

RowScalars row_scalars(const at::Tensor& rows, const at::Tensor& power, std::span<const int> bases,
                       std::span<const int64_t> summaries, const Router& router, double norm_eps,
                       double matching_eps) {
  const at::NoGradGuard no_grad;
  RowScalars scalars;
  scalars.dot = at::matmul(rows, router.query->value.view({-1}) * router.gain->value);
  scalars.ratio = at::ones_like(power);
  for (size_t j = 0; j < bases.size(); ++j) {
    if (bases[j] < 0) continue;
    const auto row = static_cast<int64_t>(j);
    scalars.ratio[row].copy_(
        ((power[summaries[j]] + matching_eps) / (power[row] + matching_eps)).sqrt_());
  }
  scalars.inverse_rms = (scalars.ratio.square() * power).add_(norm_eps).rsqrt_();
  at::Tensor logits = scalars.dot * scalars.ratio * scalars.inverse_rms;
  for (size_t j = 0; j < bases.size(); ++j) {
    if (bases[j] >= 0) logits[static_cast<int64_t>(j)].add_(router.bias->value[bases[j]]);
  }
  scalars.weight = at::softmax(logits, 0);
  return scalars;
}

at::Tensor mix_rows(const at::Tensor& rows, const RowScalars& scalars) {
  const at::NoGradGuard no_grad;
  const at::Tensor coefficients = (scalars.weight * scalars.ratio).unsqueeze(-1);
  at::Tensor h = coefficients[0] * rows[0];
  for (int64_t j = 1; j < rows.size(0); ++j) h.addcmul_(coefficients[j], rows[j]);
  return h;
}

void mix_rows_backward(const at::Tensor& rows, const RowScalars& scalars,
                       std::span<const int> bases, const Router& router, const at::Tensor& grad,
                       at::Tensor row_grads) {
  const at::NoGradGuard no_grad;
  const int64_t count = rows.size(0), width = rows.size(-1);
  at::Tensor along = at::empty_like(scalars.dot);  // dh . (ratio V)
  for (int64_t j = 0; j < count; ++j) along[j].copy_((rows[j] * grad).sum(-1));
  along.mul_(scalars.ratio);
  const at::Tensor& a = scalars.weight;
  const at::Tensor logit_grad = a * (along - (a * along).sum(0, true));

  const at::Tensor query = router.query->value.view({-1}) * router.gain->value;
  const at::Tensor to_grad = a * scalars.ratio;
  const at::Tensor to_query = logit_grad * scalars.ratio * scalars.inverse_rms;
  const at::Tensor to_row = to_query * scalars.dot *
                            (scalars.ratio * scalars.inverse_rms).square() *
                            (-1.0 / static_cast<double>(width));
  for (int64_t j = 0; j < count; ++j) {
    at::Tensor row_grad = row_grads[j];
    row_grad.addcmul_(to_grad[j].unsqueeze(-1), grad);
    row_grad.addcmul_(to_query[j].unsqueeze(-1), query);
    row_grad.addcmul_(to_row[j].unsqueeze(-1), rows[j]);
  }
  const at::Tensor t = at::matmul(to_query.reshape({1, -1}), rows.reshape({-1, width})).view({-1});
  router.query->value.mutable_grad().view({-1}).addcmul_(router.gain->value, t);
  router.gain->value.mutable_grad().addcmul_(router.query->value.view({-1}), t);
  for (size_t j = 0; j < bases.size(); ++j) {
    if (bases[j] < 0) continue;
    router.bias->value.mutable_grad()[bases[j]].add_(logit_grad[static_cast<int64_t>(j)].sum());
  }
}

}  // namespace wavroute
