// What decoding does with a few new tokens: products that read every weight once, and attention
// over a cache of keys and values.
//
// C: the compute type, float or Bf16; all arithmetic is in float.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/grid.h"
#include "kernels/types.h"

namespace wavroute::kernels {

// Rows of numbers in the blocks that ggml calls q8_0: 32 numbers share a scale, number = scale *
// quant. The parts of the blocks are stored apart.
inline constexpr int64_t kQ8Block = 32;
struct Q8Rows {
  Grid<const int8_t> quants;    // [rows, columns], columns a multiple of kQ8Block
  Grid<const uint16_t> scales;  // [rows, columns / kQ8Block], fp16, not negative
};

// y = x w^T for at most kMostTokens tokens. An element has the same bits whatever the other tokens
// and the range are.
inline constexpr int64_t kMostTokens = 16;
template <typename C, typename W>
struct TokenProducts {
  int64_t inputs = 0, tokens = 0;  // k, n
  Grid<const float> x;             // [n, k]
  W w;                             // [m, k]: Grid<const C> or Q8Rows
  Grid<C> y;                       // [n, m]
};

// Rounds a row of `columns` finite numbers to q8_0 as ggml does: scale = max |x| / 127 in fp16,
// quant = x over the unrounded scale, to the nearest integer, halves away from zero.
struct Q8Row {
  int64_t columns = 0;
  const float* from = nullptr;
  int8_t* quants = nullptr;
  uint16_t* scales = nullptr;
};

// Attention of T new tokens of each of B sequences, as Attention's (attention.h), over keys and
// values of which earlier ones are kept. Token t of sequence b is number b T + t, and its position
// is positions[b] + t.
template <typename C>
struct CachedAttention {
  AttentionShape shape;                // length: T, of the new tokens
  Grid<const C> qkv;                   // [B T, (H + 2 G) w]
  const int64_t* positions = nullptr;  // [B], of each sequence's first new token
  Grid<const float> cos, sin;          // [positions, w / 2]
  Grids<C> keys, values;               // [B G, capacity, w]
  Grid<C> y;                           // [B T, H w]
};

template <typename C>
struct DecodeKernels {
  // Rows [begin, end) of w.
  void (*products)(const TokenProducts<C, Grid<const C>>&, int64_t begin, int64_t end);
  void (*q8_products)(const TokenProducts<C, Q8Rows>&, int64_t begin, int64_t end);
  // Keeps the rotated keys and the values of tokens [begin, end).
  void (*keep)(const CachedAttention<C>&, int64_t begin, int64_t end);
  // y of units [begin, end), once all is kept: unit i G + g is token i's query heads of key-value
  // head g. `scratch` is the calling thread's own: w floats and one for each position that a token
  // sees.
  void (*attend)(const CachedAttention<C>&, int64_t begin, int64_t end, float* scratch);
  void (*widen)(const C* from, int64_t count, float* to);
};
struct Q8Kernels {
  void (*quantise)(const Q8Row&);
};

}  // namespace wavroute::kernels
