// Decoding on our kernels (kernels/decode.h), over tensors: products of a few tokens, and attention
// over a cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "ops/attention.h"
#include "ops/memory.h"

namespace wavroute::ops {

// Keys, rotated, and values of B sequences, and the number of tokens that each has.
struct KeyValues {
  at::Tensor keys, values;             // [B, G, capacity, w], in qkv's type
  std::span<const int64_t> positions;  // [B]
  // [B] on the device, of work that is recorded: it counts in the place of `positions`, up to the
  // whole capacity. Undefined elsewhere.
  at::Tensor device_positions = {};
};

// Attention of the next shape.length tokens of each sequence: qkv [B T, (H + 2 G) w] -> [B T, H w].
// Keeps their keys and values; rope: of all positions from 0 on.
[[nodiscard]] at::Tensor cached_attention(Memory& memory, const at::Tensor& qkv,
                                          const kernels::AttentionShape& shape,
                                          const RopeTable& rope, const KeyValues& cache);

// As many tokens as leave reading the weights the cost of a product.
inline constexpr int64_t kFewTokens = 8;
// Whether few_products takes them.
[[nodiscard]] bool are_few(const at::Tensor& x, const at::Tensor& w);
// x w^T in `type`, theirs or float: x [tokens, n], w [m, n] of one type, float or bfloat16
// -> [tokens, m]
[[nodiscard]] at::Tensor few_products(Memory& memory, const at::Tensor& x, const at::Tensor& w,
                                      at::ScalarType type);

}  // namespace wavroute::ops
