// Attention's heads on stock operators: the composed form, and what decoding over a cache runs on.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"

namespace wavroute::ops {

// Rotates heads x [B,T,n,width] by the angles of `rope`: the half-split rotation of the Llama
// family. In the table's type; returns x's.
[[nodiscard]] at::Tensor rotate(const at::Tensor& x, const RopeTable& rope);

// k or v [B, kv_heads, T, width] repeated so that query head h meets head floor(h kv_heads /
// heads).
[[nodiscard]] at::Tensor repeat_heads(const at::Tensor& x, int64_t heads);

// Queries and keys rotated, values; each [B, heads, T, width], from qkv [B T, (heads + 2 kv_heads)
// width].
struct Heads {
  at::Tensor q, k, v;
};
[[nodiscard]] Heads split_heads(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                                const RopeTable& rope);

// [B T, heads * width], of positions that see themselves and what came before. Differentiable.
[[nodiscard]] at::Tensor causal_attention(const at::Tensor& qkv,
                                          const kernels::AttentionShape& shape,
                                          const RopeTable& rope);

}  // namespace wavroute::ops
