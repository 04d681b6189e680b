// Products of tokens and matrices in the blocks that ggml calls q8_0: 32 numbers share a scale,
// number = scale * quant. The tokens are rounded to blocks as well, so that a block's product is
// one of integers; the parts of the blocks are stored apart.
//
// C: the compute type, float or Bf16.
#pragma once

#include <cstdint>

#include "kernels/grid.h"
#include "kernels/types.h"

namespace wavroute::kernels {

inline constexpr int64_t kQ8Block = 32;
struct Q8Rows {
  Grid<const int8_t> quants;    // [rows, columns], -127 to 127; columns a multiple of kQ8Block
  Grid<const uint16_t> scales;  // [rows, columns / kQ8Block], fp16, not negative
};

// Rounds a row of `columns` finite numbers to q8_0 as ggml does: scale = max |x| / 127 in fp16,
// quant = x over the unrounded scale, to the nearest integer, halves away from zero.
struct Q8Row {
  int64_t columns = 0;
  const float* from = nullptr;
  int8_t* quants = nullptr;
  uint16_t* scales = nullptr;
};

// Rounds rows of any numbers: scale = max |x| / 127, quant = x over it, to the nearest integer,
// halves to even. A block of numbers below 2^-100 becomes one of zeros; of a block with a number
// that is not finite the scale isn't either.
template <typename C>
struct Q8Tokens {
  int64_t columns = 0;
  Grid<const C> from;   // [n, k]
  Grid<int8_t> quants;  // [n, k]
  Grid<float> scales;   // [n, k / kQ8Block]
};

// y = x w^T. The sum of a block is exact, those of the blocks are added in one order: an element
// has the same bits whatever the other tokens and the range are.
template <typename C>
struct Q8Products {
  int64_t inputs = 0, tokens = 0;  // k, n
  Grid<const int8_t> x;            // [n, k]
  Grid<const float> x_scales;      // [n, k / kQ8Block]
  Q8Rows w;                        // [m, k]
  Grid<C> y;                       // [n, m]
  Grid<float> wide_y;              // the same in float, in place of y; null: y
};

template <typename C>
struct Q8ProductKernels {
  void (*round_tokens)(const Q8Tokens<C>&, int64_t begin, int64_t end);  // tokens
  void (*products)(const Q8Products<C>&, int64_t begin, int64_t end);    // rows of w
};
struct Q8Kernels {
  void (*quantise)(const Q8Row&);
  ByType<Q8ProductKernels> by_type;
};

}  // namespace wavroute::kernels
