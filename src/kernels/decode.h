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

// y = x w^T. An element has the same bits whatever the other tokens and the range are.
template <typename C>
struct TokenProducts {
  int64_t inputs = 0, tokens = 0;  // k, n
  Grid<const float> x;             // [n, k]
  Grid<const C> w;                 // [m, k]
  Grid<C> y;                       // [n, m]
  Grid<float> wide_y;              // the same in float, in place of y; null: y
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
  void (*products)(const TokenProducts<C>&, int64_t begin, int64_t end);
  // Keeps the rotated keys and the values of tokens [begin, end).
  void (*keep)(const CachedAttention<C>&, int64_t begin, int64_t end);
  // y of units [begin, end), once all is kept: unit i H + h is query head h of token i. `scratch`
  // is the calling thread's own: w floats and one for each position that a token sees.
  void (*attend)(const CachedAttention<C>&, int64_t begin, int64_t end, float* scratch);
  void (*widen)(const C* from, int64_t count, float* to);
};

}  // namespace wavroute::kernels
