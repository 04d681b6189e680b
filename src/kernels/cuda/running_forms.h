// The sums of the running block that a token's reader sees. Included by kernel sources only.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/route.h"

namespace wavroute::kernels::cuda {

// x[i] of a small array in registers, which cannot be addressed by a number.
template <int kCount>
WAVROUTE_DEVICE float pick(const float (&x)[kCount], int i) {
  float found = x[0];
  WAVROUTE_UNROLL for (int k = 1; k < kCount; ++k) found = k == i ? x[k] : found;
  return found;
}

WAVROUTE_DEVICE float inverse_root(float x) { return x > 0.0F ? 1.0F / root(x) : 0.0F; }

template <int n>
WAVROUTE_DEVICE void load_or_zeros(const Grid<const float>& rows, int64_t row, int64_t c,
                                   float (&to)[n]) {
  if (rows) return load<n>(rows[row] + c, to);
  for (int k = 0; k < n; ++k) to[k] = 0.0F;
}

// Columns c to c + n of the forms of parts.rows, after `write`, which is done.
template <int kParts, int n, typename C>
WAVROUTE_DEVICE void write_forms(const Parts& parts, const PartWrite<C>& write, int64_t row,
                                 int64_t c, float (&form)[kMostForms][n]) {
  float part[kMostParts][n];
  WAVROUTE_UNROLL for (int p = 0; p < kParts; ++p) {
    if (write.u && write.part == p) {
      float u[n];
      load<n>(write.u[row] + c, u);
      load_or_zeros<n>(write.in, row, c, part[p]);
      for (int k = 0; k < n; ++k) part[p][k] += u[k];
      store<n>(part[p], write.out[row] + c);
    } else {
      load_or_zeros<n>(parts.rows[p], row, c, part[p]);
    }
  }
  for (int k = 0; k < n; ++k) {
    if constexpr (kParts == 1) form[0][k] = part[0][k];
    if constexpr (kParts == 2) {
      form[0][k] = part[0][k] + part[1][k];
      form[1][k] = part[0][k] - part[1][k];
    }
    if constexpr (kParts == 4) {
      const float first = part[0][k] + part[1][k], second = part[2][k] + part[3][k];
      form[0][k] = first + second;
      form[1][k] = (part[0][k] - part[1][k]) + (part[2][k] - part[3][k]);
      form[2][k] = first - second;
    }
  }
}

// Calls kernel.operator()<kParts>() for the number of parts.
template <typename Kernel>
void with_parts(const Parts& parts, const Kernel& kernel) {
  switch (parts.count) {
    case 0:
      return kernel.template operator()<0>();
    case 1:
      return kernel.template operator()<1>();
    case 2:
      return kernel.template operator()<2>();
    default:
      return kernel.template operator()<4>();
  }
}
template <typename C>
bool takes_packs(const PartWrite<C>& write) {
  return takes_packs(write.u) && takes_packs(write.in) && takes_packs(write.out);
}
inline bool takes_packs(const Parts& parts) {
  bool all = true;
  for (int p = 0; p < parts.count; ++p) all = all && takes_packs(parts.rows[p]);
  return all;
}

}  // namespace wavroute::kernels::cuda
