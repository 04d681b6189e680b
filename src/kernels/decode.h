// What decoding does with one new token of each of a few sequences: products that read every weight
// once, and attention over a cache of keys and values.
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

// Rounds a row of `columns` numbers to q8_0 as ggml does: scale = max |x| / 127 in fp16, quant = x
// over the unrounded scale, to the nearest integer, halves away from zero.
struct Q8Row {
  int64_t columns = 0;
  const float* from = nullptr;
  int8_t* quants = nullptr;
  uint16_t* scales = nullptr;
};

// Attention of one new token of each sequence, as Attention's (attention.h). Its rotated key and
// its value are first stored in the cache, at its position.
template <typename C>
struct CachedAttention {
  int64_t sequences = 0, heads = 0, kv_heads = 0, width = 0;
  Grid<const C> qkv;                   // [B, (H + 2 G) w]
  const int64_t* positions = nullptr;  // [B]; those before it are in the cache
  Grid<const float> cos, sin;          // [B, w / 2], of each sequence's position
  Grids<C> keys, values;               // [B G, capacity, w]
  Grid<C> y;                           // [B, H w]
};

template <typename C>
struct DecodeKernels {
  // Rows [begin, end) of w.
  void (*products)(const TokenProducts<C, Grid<const C>>&, int64_t begin, int64_t end);
  void (*q8_products)(const TokenProducts<C, Q8Rows>&, int64_t begin, int64_t end);
  // Units [begin, end): unit b G + g is key-value head g of sequence b with its query heads.
  // `scratch` is the calling thread's own: as many floats as the longest sequence has tokens, the
  // new one included, and the width.
  void (*attention)(const CachedAttention<C>&, int64_t begin, int64_t end, float* scratch);
  void (*widen)(const C* from, int64_t count, float* to);
};
struct Q8Kernels {
  void (*quantise)(const Q8Row&);
};

}  // namespace wavroute::kernels
