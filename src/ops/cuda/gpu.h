// What the back end of our GPU kernels asks of the device that they run on: what a GPU
// (ops/cuda/gpu.cpp) and the emulator of the tests (kernels/cuda/emulator.h) do differently.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "kernels/cuda/stream_handle.h"
#include "ops/device_steps.h"

namespace wavroute::ops {

// Causal attention over heads: q [B,T,H,w], k and v [B,T,G,w], whose last dimension is contiguous.
struct FlashResult {
  at::Tensor y;    // [B,T,H,w]
  at::Tensor lse;  // [B,H,T] float
};
struct FlashGrads {
  at::Tensor q, k, v;  // like q, k and v
};

class Gpu {
 public:
  Gpu() = default;
  virtual ~Gpu() = default;
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  [[nodiscard]] virtual at::Device device() const = 0;
  // That of libtorch's operators.
  [[nodiscard]] virtual kernels::cuda::Stream stream() const = 0;

  // Whether flash_attention takes heads of this width and type.
  [[nodiscard]] virtual bool has_flash(int64_t width, at::ScalarType type) const = 0;
  [[nodiscard]] virtual FlashResult flash_attention(const at::Tensor& q, const at::Tensor& k,
                                                    const at::Tensor& v) = 0;
  [[nodiscard]] virtual FlashGrads flash_attention_backward(const at::Tensor& q,
                                                            const at::Tensor& k,
                                                            const at::Tensor& v,
                                                            const FlashResult& forward,
                                                            const at::Tensor& dy) = 0;

  // sum [m, n] float += a [m, k] b [k, n] of bfloat16, in float.
  virtual void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) = 0;

  // Runs `work`, which gives the device work and waits for nothing, and records what it gave.
  [[nodiscard]] virtual std::unique_ptr<Recording> record(const std::function<void()>& work) = 0;
  // For a tensor of its memory.
  [[nodiscard]] virtual std::unique_ptr<Mailbox> mailbox(at::Tensor device) = 0;
};

}  // namespace wavroute::ops
