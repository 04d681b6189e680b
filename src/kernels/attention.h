// Causal attention with RoPE and grouped key-value heads (method.md section 1), forward and
// backward, for the CPU.
//
// Shapes: B sequences, T positions, H query heads, G key-value heads (H a multiple of G), w head
// width (even). One row of qkv: H query heads, G key heads, G value heads, each w numbers.
// C: the compute type, float or Bf16; scores, softmax and all sums are float, and so are all
// factors, except for Bf16 on AMX (attention_amx.cpp).
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace wavroute::kernels {

struct AttentionShape {
  int64_t batch = 0, length = 0, heads = 0, kv_heads = 0, width = 0;
  [[nodiscard]] int64_t row() const { return (heads + 2 * kv_heads) * width; }
};

// y = softmax(causal(rot(q) rot(k)^T / sqrt(w))) v; query head h uses key-value head h G / H.
// rot: the half-split rotation of the Llama family.
template <typename C>
struct Attention {
  AttentionShape shape;
  const C* qkv = nullptr;      // [B, T, (H + 2 G) w]
  const float* cos = nullptr;  // [T, w / 2]
  const float* sin = nullptr;  // [T, w / 2]
  C* y = nullptr;              // [B, T, H w]
  float* lse = nullptr;        // [B, H, T] logsumexp of a row's scaled scores
};

template <typename C>
struct AttentionBackward {
  AttentionShape shape;
  const C* qkv = nullptr;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const C* y = nullptr;
  const C* dy = nullptr;  // [B, T, H w]
  const float* lse = nullptr;
  C* dqkv = nullptr;  // [B, T, (H + 2 G) w]; must not be qkv
};

// A unit of work is one key-value head of one sequence with its query heads, numbered
// b * G + group: units are independent and write disjoint parts of the results. `scratch` is the
// calling thread's own, of at least scratch_floats(shape) floats, 64-byte aligned.
template <typename C>
struct AttentionKernels {
  int64_t (*scratch_floats)(const AttentionShape&);
  void (*forward)(const Attention<C>&, int64_t begin, int64_t end, float* scratch);
  void (*backward)(const AttentionBackward<C>&, int64_t begin, int64_t end, float* scratch);
};

}  // namespace wavroute::kernels
