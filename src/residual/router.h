// The read of every routed scheme (method.md section 3) over the rows of a bank, on stock
// operators: a softmax over depth, with its backward written out.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "ops/backend.h"
#include "residual/routed.h"

namespace wavroute {

// A read over rows of a bank that hold raw sums: row j stands for the source ratio_j V_j.
// All of [n, B, T], in the rows' type.
struct RowScalars {
  at::Tensor dot;          // (w*g) . V
  at::Tensor ratio;        // rho of a detail, 1 of a summary; a constant for the gradient
  at::Tensor inverse_rms;  // 1 / rms(ratio V)
  at::Tensor weight;       // a
};

// Descriptions of the rows for operators over all of them: row by row, each would cost a launch on
// a GPU.
struct RowKinds {
  at::Tensor summary;     // int64 [n]: the row of a detail's summary; a summary's own
  at::Tensor is_summary;  // bool [n, 1, 1]
  at::Tensor place;       // int64 [n]: 1 + the index of a detail's bias; 0 for a summary
  int64_t details = 0;    // biases of a router

  // Of the first n rows.
  [[nodiscard]] RowKinds first(int64_t n) const;
};

// bases: -1 or the index of a detail's bias, below `details`, whose summary is row `summaries[j]`.
// For rows of this back end.
[[nodiscard]] RowKinds row_kinds(std::span<const int> bases, const std::vector<int64_t>& summaries,
                                 int64_t details, ops::Backend& backend);

// rows [n,B,T,d]; power [n,B,T] = mean_c V^2.
[[nodiscard]] RowScalars row_scalars(const at::Tensor& rows, const at::Tensor& power,
                                     const RowKinds& kinds, const Router& router, double norm_eps,
                                     double matching_eps);
// h [B,T,d] = sum_j a_j ratio_j V_j
[[nodiscard]] at::Tensor mix_rows(const at::Tensor& rows, const RowScalars& scalars);
// The same from a_j ratio_j [n,B,T].
[[nodiscard]] at::Tensor mix_rows(const at::Tensor& rows, const at::Tensor& coefficients);
// The backward of mix_rows (method.md section 4): adds to row_grads [n,B,T,d] and to the gradients
// of the router. grad [B,T,d] is that of h.
void mix_rows_backward(const at::Tensor& rows, const RowScalars& scalars, const RowKinds& kinds,
                       const Router& router, const at::Tensor& grad, const at::Tensor& row_grads);

}  // namespace wavroute
