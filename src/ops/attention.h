// Causal attention with RoPE (kernels/attention.h), over tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include "kernels/attention.h"
#include "ops/memory.h"

namespace wavroute::ops {

// theta^(-2i/w), [w/2] double.
[[nodiscard]] at::Tensor rope_frequencies(int64_t width, double theta);

// cos and sin of position * frequency, [T, w/2] each, of positions first .. first + T - 1, times
// `scale`; computed on the CPU in double, of the type and on the device of `options`.
struct RopeTable {
  at::Tensor cos, sin;
};
[[nodiscard]] RopeTable rope_table(int64_t first, int64_t length, const at::Tensor& frequency,
                                   double scale, const at::TensorOptions& options);
// Of plain RoPE.
[[nodiscard]] RopeTable rope_table(int64_t first, int64_t length, int64_t width, double theta,
                                   const at::TensorOptions& options);

struct Attended {
  at::Tensor y;    // [B T, H w]
  at::Tensor lse;  // [B, H, T] float
};

// qkv [B T, (H + 2 G) w], float or bfloat16
[[nodiscard]] Attended attention(Memory& memory, const at::Tensor& qkv,
                                 const kernels::AttentionShape& shape, const RopeTable& rope);
// The gradient of qkv.
[[nodiscard]] at::Tensor attention_backward(Memory& memory, const at::Tensor& qkv,
                                            const Attended& forward, const at::Tensor& dy,
                                            const kernels::AttentionShape& shape,
                                            const RopeTable& rope);

}  // namespace wavroute::ops
