// The read of every routed scheme: a softmax over depth (method.md section 3), composed of stock
// operators. It is the fallback, the oracle and the baseline of every faster form.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "wavroute/parameters.h"

namespace wavroute {

// Parameters of one router. `bias` is null without details.
struct Router {
  Parameter* query = nullptr;  // w [1, d]
  Parameter* gain = nullptr;   // g [d]
  Parameter* bias = nullptr;   // beta [number of detail bases]
};

// One source of a read.
struct Source {
  at::Tensor value;  // v [B,T,d]
  int basis = -1;    // -1: a summary; else the index of the detail basis, into `bias`
};

// h = sum_j a_j v_j, a = softmax_j( (w*g) . v_j / rms(v_j) + beta ). Differentiable; keeps only the
// sources. `weights`, if given, receives a [sources, B, T].
[[nodiscard]] at::Tensor mix(std::span<const Source> sources, const Router& router, double eps,
                             at::Tensor* weights = nullptr);

// rho = sqrt((mean S^2 + eps) / (mean D^2 + eps)) [B,T,1], without history.
[[nodiscard]] at::Tensor matching_ratio(const at::Tensor& detail, const at::Tensor& summary,
                                        double eps);

}  // namespace wavroute
