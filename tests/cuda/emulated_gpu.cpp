#include "tests/cuda/emulated_gpu.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "kernels/cuda/emulator.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/heads.h"
#include "tests/cuda/tape.h"

namespace wavroute::testing {
namespace {

class TapeRecording final : public ops::Recording {
 public:
  explicit TapeRecording(const std::function<void()>& work) : tape_(work) {}
  void start() override { tape_.replay(); }  // what the device does later is done at once

 private:
  Tape tape_;
};

class CopiedMailbox final : public ops::Mailbox {
 public:
  explicit CopiedMailbox(at::Tensor device)
      : device_(std::move(device)), host_(at::empty_like(device_)) {}
  [[nodiscard]] at::Tensor host() const override { return host_; }
  void send() override { device_.copy_(host_); }
  void fetch() override { host_.copy_(device_); }
  void wait() override {}

 private:
  at::Tensor device_, host_;
};

// The causal scores of heads [B,T,H,w] and [B,T,G,w]: [B,H,T,T] float.
at::Tensor scores_of(const at::Tensor& q, const at::Tensor& k) {
  const int64_t length = q.size(1);
  const at::Tensor keys = ops::repeat_heads(k.transpose(1, 2), q.size(2)).to(at::kFloat);
  const at::Tensor scores = q.transpose(1, 2).to(at::kFloat).matmul(keys.transpose(2, 3)) /
                            std::sqrt(static_cast<double>(q.size(3)));
  return scores.masked_fill(at::ones({length, length}, at::kBool).triu(1), -INFINITY);
}
// [B,T,H,w] float
at::Tensor mixed(const at::Tensor& scores, const at::Tensor& lse, const at::Tensor& v) {
  const at::Tensor values = ops::repeat_heads(v.transpose(1, 2), scores.size(1)).to(at::kFloat);
  return (scores - lse.unsqueeze(-1)).exp().matmul(values).transpose(1, 2);
}

class EmulatedGpu final : public ops::Gpu {
 public:
  [[nodiscard]] at::Device device() const override { return at::kCPU; }
  [[nodiscard]] kernels::cuda::Stream stream() const override { return nullptr; }
  // What libtorch's kernels give, by the definition.
  [[nodiscard]] bool has_flash(int64_t, at::ScalarType type) const override {
    return type == at::kBFloat16;
  }
  [[nodiscard]] ops::FlashResult flash_attention(const at::Tensor& q, const at::Tensor& k,
                                                 const at::Tensor& v) override {
    const auto made = as_one_operator([=]() -> std::vector<at::Tensor> {
      const at::Tensor scores = scores_of(q, k), lse = scores.logsumexp(-1);
      return {mixed(scores, lse, v).to(q.scalar_type()), lse};
    });
    return {made[0], made[1]};
  }
  [[nodiscard]] ops::FlashGrads flash_attention_backward(const at::Tensor& q, const at::Tensor& k,
                                                         const at::Tensor& v,
                                                         const ops::FlashResult& forward,
                                                         const at::Tensor& dy) override {
    const auto grads = as_one_operator([=] {
      const at::AutoGradMode with_grad(true);
      const auto leaf = [](const at::Tensor& x) { return x.detach().set_requires_grad(true); };
      const at::Tensor a = leaf(q), b = leaf(k), c = leaf(v), scores = scores_of(a, b),
                       lse = scores.logsumexp(-1);
      EXPECT_TRUE(at::allclose(lse, forward.lse, 1e-5, 1e-8, /*equal_nan=*/true))
          << "another forward's";
      return torch::autograd::grad({mixed(scores, lse, c)}, {a, b, c}, {dy.to(at::kFloat)});
    });
    return {grads[0], grads[1], grads[2]};
  }
  void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) override {
    sum.addmm_(a.to(at::kFloat), b.to(at::kFloat));
  }
  [[nodiscard]] std::unique_ptr<ops::Recording> record(const std::function<void()>& work) override {
    return std::make_unique<TapeRecording>(work);
  }
  [[nodiscard]] std::unique_ptr<ops::Mailbox> mailbox(at::Tensor device) override {
    return std::make_unique<CopiedMailbox>(std::move(device));
  }
};

}  // namespace

std::unique_ptr<ops::Backend> make_emulated_backend() {
  kernels::cuda::emulator::set_order(kernels::cuda::emulator::Order::kBackwards);
  return std::make_unique<ops::CudaBackend>(std::make_unique<EmulatedGpu>());
}

}  // namespace wavroute::testing
