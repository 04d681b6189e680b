#include "residual/router.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <vector>

#include "ops/zero_rows.h"

namespace wavroute {
namespace {

// The CPU goes through the rows one by one, each while it is in the cache; a GPU takes all of them
// in one launch.

// rows [n,B,T,d] as a matrix of each token, [B T, n, d].
at::Tensor by_token(const at::Tensor& rows) { return rows.flatten(1, 2).transpose(0, 1); }

// Of each row with `grad` [B,T,d], [n,B,T].
at::Tensor dots(const at::Tensor& rows, const at::Tensor& grad) {
  const at::IntArrayRef sizes = rows.sizes().slice(0, 3);
  if (!rows.is_cpu()) {
    return at::bmm(by_token(rows), grad.reshape({-1, grad.size(-1), 1}))
        .squeeze(-1)
        .t()
        .reshape(sizes);
  }
  at::Tensor products = at::empty(sizes, rows.options());
  for (int64_t j = 0; j < rows.size(0); ++j) products[j].copy_((rows[j] * grad).sum(-1));
  return products;
}

}  // namespace

RowKinds RowKinds::first(int64_t n) const {
  return {summary.narrow(0, 0, n), is_summary.narrow(0, 0, n), place.narrow(0, 0, n), details};
}

RowKinds row_kinds(std::span<const int> bases, const std::vector<int64_t>& summaries,
                   int64_t details, ops::Backend& backend) {
  std::vector<int64_t> places;
  for (const int basis : bases) places.push_back(basis + 1);
  RowKinds kinds;
  kinds.summary = backend.numbers(summaries);
  kinds.place = backend.numbers(places);
  kinds.is_summary = kinds.place.eq(0).view({-1, 1, 1});
  kinds.details = details;
  return kinds;
}

RowScalars row_scalars(const at::Tensor& rows, const at::Tensor& power, const RowKinds& kinds,
                       const Router& router, double norm_eps, double matching_eps) {
  const at::NoGradGuard no_grad;
  RowScalars scalars;
  scalars.dot = at::matmul(rows, router.query->value.view({-1}) * router.gain->value);
  if (kinds.details > 0) {
    scalars.ratio = ops::matching_ratio(power.index_select(0, kinds.summary), power, matching_eps);
    scalars.ratio.masked_fill_(kinds.is_summary, 1.0);  // which it is, save 0 / 0
  } else {
    scalars.ratio = at::ones_like(power);
  }
  scalars.inverse_rms = ops::inverse_root(scalars.ratio.square() * power, norm_eps);
  at::Tensor logits = scalars.dot * scalars.ratio * scalars.inverse_rms;
  if (kinds.details > 0) {
    const at::Tensor& bias = router.bias->value;
    const at::Tensor of_place = at::cat({at::zeros({1}, bias.options()), bias});
    logits.add_(of_place.index_select(0, kinds.place).view({-1, 1, 1}));
  }
  scalars.weight = at::softmax(logits, 0);
  return scalars;
}

at::Tensor mix_rows(const at::Tensor& rows, const RowScalars& scalars) {
  return mix_rows(rows, scalars.weight * scalars.ratio);
}

at::Tensor mix_rows(const at::Tensor& rows, const at::Tensor& coefficients) {
  const at::NoGradGuard no_grad;
  if (!rows.is_cpu()) {
    const at::Tensor per_token = coefficients.flatten(1).t().unsqueeze(1);  // [B T, 1, n]
    return at::bmm(per_token, by_token(rows)).view(rows[0].sizes());
  }
  at::Tensor h = coefficients[0].unsqueeze(-1) * rows[0];
  for (int64_t j = 1; j < rows.size(0); ++j) {
    h.addcmul_(coefficients[j].unsqueeze(-1), rows[j]);
  }
  return h;
}

void mix_rows_backward(const at::Tensor& rows, const RowScalars& scalars, const RowKinds& kinds,
                       const Router& router, const at::Tensor& grad, const at::Tensor& row_grads) {
  const at::NoGradGuard no_grad;
  const int64_t width = rows.size(-1);
  const at::Tensor along = dots(rows, grad).mul_(scalars.ratio);  // dh . (ratio V)
  const at::Tensor& a = scalars.weight;
  const at::Tensor logit_grad = a * (along - (a * along).sum(0, true));

  const at::Tensor query = router.query->value.view({-1}) * router.gain->value;
  const at::Tensor to_grad = a * scalars.ratio;
  const at::Tensor to_query = logit_grad * scalars.ratio * scalars.inverse_rms;
  const at::Tensor to_row = to_query * scalars.dot *
                            (scalars.ratio * scalars.inverse_rms).square() *
                            (-1.0 / static_cast<double>(width));
  // The gradients of rows that are [B,T,d], or [n,B,T,d] all together.
  const auto add = [&](const at::Tensor& row_grad, const at::Tensor& row,
                       const at::Tensor& from_grad, const at::Tensor& from_query,
                       const at::Tensor& from_row) {
    row_grad.addcmul_(from_grad.unsqueeze(-1), grad);
    row_grad.addcmul_(from_query.unsqueeze(-1), query);
    row_grad.addcmul_(from_row.unsqueeze(-1), row);
  };
  if (rows.is_cpu()) {
    for (int64_t j = 0; j < rows.size(0); ++j) {
      add(row_grads[j], rows[j], to_grad[j], to_query[j], to_row[j]);
    }
  } else {
    add(row_grads, rows, to_grad, to_query, to_row);
  }
  const at::Tensor t = at::matmul(to_query.reshape({1, -1}), rows.reshape({-1, width})).view({-1});
  router.query->value.mutable_grad().view({-1}).addcmul_(router.gain->value, t);
  router.gain->value.mutable_grad().addcmul_(router.query->value.view({-1}), t);
  if (kinds.details > 0) {
    const at::Tensor of_row = logit_grad.flatten(1).sum(1);
    const at::Tensor of_place =
        at::zeros({kinds.details + 1}, of_row.options()).index_add_(0, kinds.place, of_row);
    router.bias->value.mutable_grad().add_(of_place.narrow(0, 1, kinds.details));
  }
}

}  // namespace wavroute
