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
};
template <typename C>
void rotate_heads(const RotateHeads<C>& args, Stream stream);

}  // namespace wavroute::kernels::cuda
