// Matrices in ggml's blocks of q8_0 (kernels/q8.h), over tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "ops/memory.h"

namespace wavroute::ops {

// A matrix [m, n]; n is a multiple of the blocks' length.
inline constexpr int64_t kQ8Block = 32;
struct Q8Matrix {
  at::Tensor quants;  // [m, n] int8
  at::Tensor scales;  // [m, n / 32] int16, the bits of fp16
  [[nodiscard]] bool defined() const { return quants.defined(); }
};
[[nodiscard]] Q8Matrix quantise(const at::Tensor& matrix);
// The same of several, one after the other in memory, as a pass reads them.
[[nodiscard]] std::vector<Q8Matrix> quantise(std::span<const at::Tensor> matrices);
// x w^T in `type`, x's or float, for any number of tokens, which are rounded to blocks as well.
[[nodiscard]] at::Tensor q8_products(Memory& memory, const at::Tensor& x, const Q8Matrix& w,
                                     at::ScalarType type);
// x as the blocks of q8_products have it: floats.
[[nodiscard]] at::Tensor rounded_to_blocks(const at::Tensor& x);
// The numbers that the blocks stand for, float.
[[nodiscard]] at::Tensor dequantised(const Q8Matrix& matrix);

}  // namespace wavroute::ops
