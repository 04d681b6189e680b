// Attention's heads on a GPU: all pointers lead to its memory. Functions throw std::runtime_error
// where the device refuses a kernel.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/stream_handle.h"

namespace wavroute::kernels::cuda {

// Heads of w adjacent numbers: head h of token t of sequence b is at
// at + b * sequence + t * token + h * head.
template <typename C>
struct Heads {
  C* at = nullptr;
  int64_t sequence = 0, token = 0, head = 0;
};

// Queries and keys, rotated by the angles of their positions (the half-split rotation of the Llama
// family), and values as they are, from one place to another.
template <typename C>
struct RotateHeads {
  AttentionShape shape;
  Heads<const C> query, key, value;
  Heads<C> query_to, key_to;   // may be where they are from
  Heads<C> value_to;           // null: values stay where they are
  const float* cos = nullptr;  // [T, w / 2]
  const float* sin = nullptr;  // [T, w / 2]
  bool back = false;           // the transposed rotation: that of gradients
  // [B]: token t of sequence b is at position positions[b] + t, of the angles and where keys and
  // values go to. Null: at position t.
  const int64_t* positions = nullptr;
};
template <typename C>
void rotate_heads(const RotateHeads<C>& args, Stream stream);

// Attention of the last T tokens of each sequence over all of its keys and values up to theirs.
template <typename C>
struct CachedAttention {
  AttentionShape shape;                // T: new tokens, which the cache has already
  Heads<const C> query, key, value;    // key and value by position
  const int64_t* positions = nullptr;  // [B] of the first new token
  int64_t most = 0;                    // no sequence has more positions than this
  Heads<C> y;
  float* scratch = nullptr;  // cached_attention_floats(shape, most)
};
// Throws std::invalid_argument for heads of more than 256 numbers.
template <typename C>
void cached_attention(const CachedAttention<C>& args, Stream stream);
[[nodiscard]] int64_t cached_attention_floats(const AttentionShape& shape, int64_t most);

}  // namespace wavroute::kernels::cuda
