// One reader of a running block by the equations of docs/method.md, in double: the reference for
// the kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {

using Row = std::vector<double>;
template <typename C>
using Rows = std::vector<C>;

// Sums over d terms are taken in another order; a Bf16 result is rounded to 8 bits.
template <typename C>
inline constexpr double kTolerance = sizeof(C) == sizeof(float) ? 1e-5 : 4e-3;
// A gradient is made from an h that is kept in C, and from differences of its products.
template <typename C>
inline constexpr double kGradTolerance = sizeof(C) == sizeof(float) ? 1e-5 : 2e-2;
inline constexpr double kNormEps = 1e-6, kMatchingEps = 1e-12;

inline double dot(const Row& a, const Row& b) {
  double total = 0;
  for (size_t c = 0; c < a.size(); ++c) total += a[c] * b[c];
  return total;
}
inline double mean_square(const Row& a) { return dot(a, a) / static_cast<double>(a.size()); }

template <typename T>
Row row_of(const std::vector<T>& rows, int64_t t, int64_t d) {
  const auto first = rows.begin() + t * d;
  return to_double(std::vector<T>(first, first + d));
}

struct Source {
  Row sum;
  double bias = 0;
  double ratio = 1;
  [[nodiscard]] double inverse(double eps) const {
    return 1 / std::sqrt(ratio * ratio * mean_square(sum) + eps);
  }
};
struct Reading {
  Row h, x;
  double lse = 0, inverse_rms = 0;
};

// One token's reader: softmax over phase 1's part and the running sources, then the PreNorm.
inline Reading read_reference(const std::vector<Source>& sources, const Row& query, double peak,
                              double mass, const Row& mixed, const Row& gain) {
  double total = mass * std::exp(peak);
  Row h = mixed;
  for (double& x : h) x *= std::exp(peak);
  for (const Source& source : sources) {
    const double logit =
        source.ratio * source.inverse(kNormEps) * dot(query, source.sum) + source.bias;
    total += std::exp(logit);
    for (size_t c = 0; c < h.size(); ++c) h[c] += std::exp(logit) * source.ratio * source.sum[c];
  }
  for (double& x : h) x /= total;
  Reading result{h, h, std::log(total), 1 / std::sqrt(mean_square(h) + kNormEps)};
  for (size_t c = 0; c < h.size(); ++c) result.x[c] *= gain[c] * result.inverse_rms;
  return result;
}
inline double matching_ratio(const Row& summary, const Row& detail) {
  return std::sqrt((mean_square(summary) + kMatchingEps) / (mean_square(detail) + kMatchingEps));
}

}  // namespace wavroute::kernels
