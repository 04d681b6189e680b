#include "functional/composed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "functional/operators.h"
#include "functional/running.h"
#include "ops/zero_rows.h"

namespace wavroute::functional::composed {
namespace {

at::Tensor mean_square(const at::Tensor& v) { return v.square().mean(-1); }

// rho from mean squares; a summary is not matched.
at::Tensor ratio_of(const at::Tensor& power, const OptionalTensor& summary, double eps) {
  const at::NoGradGuard no_grad;
  if (!summary) return at::ones_like(power);
  return ops::matching_ratio(*summary, power, eps);
}

struct Norm {
  at::Tensor x, inverse_rms;
};
Norm normed(const at::Tensor& h, const OptionalTensor& gain, double eps, at::ScalarType type) {
  if (!gain) return {h.to(type, /*non_blocking=*/false, /*copy=*/true), absent(h)};
  const at::Tensor inverse = ops::inverse_root(mean_square(h), eps);
  return {(h * inverse.unsqueeze(-1) * *gain).to(type), inverse.detach()};
}

// The parts after the write of u.
OptionalTensors written(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
                        at::ScalarType type) {
  if (!u) return parts;
  OptionalTensors seen = parts.copy();
  const at::Tensor update = u->to(type);
  const OptionalTensor before = parts.get(part);
  seen.set(part, before ? *before + update : update);
  return seen;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> add_norm(
    const at::Tensor& h, const OptionalTensor& u, const OptionalTensor& scale, double coefficient,
    const OptionalTensor& gain, double eps, std::optional<at::ScalarType> type) {
  at::Tensor updated;
  if (u) {
    at::Tensor update = u->to(h.scalar_type());
    if (scale) update = update * *scale;
    updated = at::add(h, update, coefficient);
  } else {
    updated = h.clone(at::MemoryFormat::Contiguous);
  }
  const at::ScalarType compute = u ? u->scalar_type() : type.value_or(h.scalar_type());
  const Norm norm = normed(updated, gain, eps, compute);
  return {updated, norm.x, norm.inverse_rms};
}

std::tuple<at::Tensor, at::Tensor> source_scalars(const at::Tensor& row,
                                                  const OptionalTensor& summary, double norm_eps,
                                                  double matching_eps) {
  const at::NoGradGuard no_grad;
  const at::ScalarType type = row.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor power = mean_square(row.to(type));
  OptionalTensor summary_power;
  if (summary) summary_power = mean_square(summary->to(type));
  const at::Tensor ratio = ratio_of(power, summary_power, matching_eps);
  return {ratio, ops::inverse_root(ratio.square() * power, norm_eps)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> route_mix(at::TensorList rows,
                                                                     const at::Tensor& ratio,
                                                                     const at::Tensor& inverse,
                                                                     const at::Tensor& query,
                                                                     const at::Tensor& bias) {
  const at::Tensor values = at::stack(rows).to(query.scalar_type());  // [n, tokens, d]
  const at::Tensor rho = ratio.detach(), kept = inverse.detach();
  // The inverse rms as a function of the values: `inverse` in value, with the norm's gradient.
  const at::Tensor power = mean_square(values);
  const at::Tensor live =
      (kept.square().reciprocal() + rho.square() * (power - power.detach())).rsqrt();
  const at::Tensor dot = at::matmul(values, query.t());  // [n, tokens, R]
  const at::Tensor logits =
      ((rho * live).unsqueeze(-1) * dot).permute({2, 0, 1}) + bias.unsqueeze(-1);
  const at::Tensor peak = logits.detach().amax(1);                        // [R, tokens]
  const at::Tensor weight = (logits - peak.unsqueeze(1)).exp();           // [R, n, tokens]
  const at::Tensor mixed = at::matmul((weight * rho).permute({2, 0, 1}),  // [tokens, R, n]
                                      values.transpose(0, 1))             // [tokens, n, d]
                               .transpose(0, 1)
                               .contiguous();
  return {mixed, peak, weight.sum(1), logits.detach().contiguous()};
}

std::vector<at::Tensor> forms_of(const OptionalTensors& parts, const at::Tensor& like) {
  const auto part = [&](size_t k) {
    const OptionalTensor there = parts.get(k);
    return there ? *there : at::zeros_like(like, at::MemoryFormat::Contiguous);
  };
  switch (parts.size()) {
    case 0:
      return {};
    case 1:
      return {part(0)};
    case 2: {
      const at::Tensor a = part(0), b = part(1);
      return {a + b, a - b};
    }
    default: {
      const at::Tensor a = part(0), b = part(1), c = part(2), d = part(3);
      const at::Tensor first = a + b, second = c + d;
      return {first + second, (a - b) + (c - d), first - second};
    }
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> route_read(
    const OptionalTensor& u, int64_t part, const OptionalTensors& parts, at::IntArrayRef forms,
    const at::Tensor& mixed, const at::Tensor& peak, const at::Tensor& mass,
    const at::Tensor& query, const at::Tensor& bias, const OptionalTensor& gain, double norm_eps,
    double matching_eps, std::optional<at::ScalarType> type) {
  const OptionalTensors seen = written(u, part, parts, mixed.scalar_type());
  const std::vector<at::Tensor> sums = forms_of(seen, mixed);
  const at::Tensor total = mass.log() + peak.detach();  // phase 1 as one source
  std::vector<at::Tensor> logits = {total}, kept;
  std::vector<at::Tensor> ratios;
  for (size_t s = 0; s < forms.size(); ++s) {
    const at::Tensor& sum = sums[static_cast<size_t>(forms[s])];
    const at::Tensor power = mean_square(sum);
    OptionalTensor summary;
    if (forms[s] > 0) summary = mean_square(sums[0].detach());
    const at::Tensor ratio = ratio_of(power.detach(), summary, matching_eps);
    const at::Tensor inverse = ops::inverse_root(ratio.square() * power, norm_eps);
    const at::Tensor dot = at::matmul(sum, query);
    logits.push_back(ratio * inverse * dot + bias.select(0, static_cast<int64_t>(s)));
    ratios.push_back(ratio);
    kept.push_back(at::stack({dot.detach(), ratio, inverse.detach()}));
  }
  const at::Tensor all = at::stack(logits);  // [1 + running, tokens]
  const at::Tensor weight = at::softmax(all, 0).unsqueeze(-1);
  at::Tensor h = weight[0] / mass.unsqueeze(-1) * mixed;
  for (size_t s = 0; s < forms.size(); ++s) {
    h = at::addcmul(h, weight[static_cast<int64_t>(s) + 1] * ratios[s].unsqueeze(-1),
                    sums[static_cast<size_t>(forms[s])]);
  }
  const at::ScalarType compute = u ? u->scalar_type() : type.value_or(mixed.scalar_type());
  const Norm norm = normed(h, gain, norm_eps, compute);
  at::Tensor out = absent(mixed);
  if (u) out = at::add(*seen.get(part), 0.0);  // not u itself where it is the part's first update
  return {
      out,
      norm.x,
      gain ? h.detach().to(compute) : absent(mixed),
      norm.inverse_rms,
      at::logsumexp(all.detach(), 0),
      kept.empty() ? at::empty_symint({0, 3, peak.sym_size(0)}, peak.options()) : at::stack(kept)};
}

std::tuple<std::vector<at::Tensor>, at::Tensor, at::Tensor> route_finish(
    const OptionalTensor& u, int64_t part, const OptionalTensors& parts, at::IntArrayRef forms,
    double norm_eps, double matching_eps) {
  const at::Tensor like = stream_of(u, parts);
  const OptionalTensors seen = written(u, part, parts, like.scalar_type());
  const std::vector<at::Tensor> sums = forms_of(seen, like);
  std::vector<at::Tensor> rows, ratios, inverses;
  for (const int64_t form : forms) {
    rows.push_back(sums[static_cast<size_t>(form)].clone());
    OptionalTensor summary;
    if (form > 0) summary = sums[0];
    const auto [ratio, inverse] = source_scalars(rows.back(), summary, norm_eps, matching_eps);
    ratios.push_back(ratio);
    inverses.push_back(inverse);
  }
  return {rows, at::stack(ratios), at::stack(inverses)};
}

}  // namespace wavroute::functional::composed
