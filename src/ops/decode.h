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
// x w^T: x [tokens, n], w [m, n] of one type, float or bfloat16 -> [tokens, m]
[[nodiscard]] at::Tensor few_products(Memory& memory, const at::Tensor& x, const at::Tensor& w);

// A matrix [m, n] in blocks of q8_0; n is a multiple of their length.
inline constexpr int64_t kQ8Block = 32;
struct Q8Matrix {
  at::Tensor quants;  // [m, n] int8
  at::Tensor scales;  // [m, n / 32] int16, the bits of fp16
  [[nodiscard]] bool defined() const { return quants.defined(); }
};
[[nodiscard]] Q8Matrix quantise(const at::Tensor& matrix);
// x w^T in x's type, for any number of tokens.
[[nodiscard]] at::Tensor q8_products(Memory& memory, const at::Tensor& x, const Q8Matrix& w);
// The numbers that the blocks stand for, float.
[[nodiscard]] at::Tensor dequantised(const Q8Matrix& matrix);

}  // namespace wavroute::ops
