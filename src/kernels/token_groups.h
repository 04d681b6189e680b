// How products of a matrix with a few tokens walk over both. Included by kernel sources only.
#pragma once

#include <cstdint>

#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// Calls multiply.operator()<n>(row, token) for each row of [begin, end) and n tokens from `token`
// on, n one of 8, 4, 2 and 1. Blocks of kRows rows stay in the L2 cache for all tokens.
template <int64_t kRows, typename Multiply>
inline void for_token_groups(int64_t begin, int64_t end, int64_t tokens, const Multiply& multiply) {
  for (int64_t first = begin; first < end; first += kRows) {
    const int64_t last = first + kRows < end ? first + kRows : end;
    int64_t token = 0;
    const auto take = [&]<int n>() {
      for (; token + n <= tokens; token += n) {
        for (int64_t row = first; row < last; ++row) multiply.template operator()<n>(row, token);
      }
    };
    take.template operator()<8>();
    take.template operator()<4>();
    take.template operator()<2>();
    take.template operator()<1>();
  }
}

// Elements (token + t, row) of p.y or p.wide_y: the sums of sums[t]'s lanes.
template <typename Products, int kTokens>
inline void store_products(const Products& p, int64_t row, int64_t token,
                           const Vec (&sums)[kTokens]) {
  for (int t = 0; t < kTokens; ++t) {
    const float y = sum(sums[t]);
    if (p.wide_y) {
      p.wide_y[token + t][row] = y;
    } else {
      store_number(p.y[token + t] + row, y);
    }
  }
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
