// Our kernels on the CPU, with the memory of an arena.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/embedding.h>

#include "ops/arena.h"
#include "ops/backend.h"
#include "ops/bias.h"
#include "ops/cross_entropy.h"
#include "ops/decode.h"
#include "ops/elementwise_arguments.h"
#include "ops/flat.h"
#include "ops/ids.h"
#include "ops/parallel.h"
#include "ops/products.h"
#include "ops/swiglu.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

class CpuBackend final : public Backend, public RouteOperators {
 public:
  [[nodiscard]] BackendKind kind() const override { return BackendKind::kCpu; }
  [[nodiscard]] bool serves(const PassNeeds& needs) const override {
    return !needs.taps && (!needs.program || needs.decoding);
  }
  [[nodiscard]] RouteOperators* routes() override { return this; }

  [[nodiscard]] Memory& memory() override { return arena_; }
  void begin_pass() override { arena_.begin_pass(); }

  [[nodiscard]] at::Tensor project(const at::Tensor& x, const at::Tensor& w) override {
    return are_few(x, w) ? few_products(arena_, x, w, x.scalar_type()) : ops::project(arena_, x, w);
  }
  [[nodiscard]] at::Tensor project_logits(const at::Tensor& x, const at::Tensor& w) override {
    return are_few(x, w) ? few_products(arena_, x, w, at::kFloat)
                         : ops::project(arena_, x, w).to(at::kFloat);
  }
  [[nodiscard]] at::Tensor project_backward(const at::Tensor& du, const at::Tensor& w) override {
    return ops::project_backward(arena_, du, w);
  }
  void add_weight_grad(const at::Tensor& du, const at::Tensor& x, at::Tensor grad) override {
    ops::add_weight_grad(arena_, du, x, std::move(grad));
  }
  void add_bias(at::Tensor rows, const at::Tensor& bias) override { ops::add_bias(rows, bias); }
  void add_bias_grad(const at::Tensor& du, at::Tensor grad) override {
    ops::add_bias_grad(du.contiguous(), grad);
  }
  // Each chunk's products are on one thread.
  [[nodiscard]] at::Tensor batched_product(const at::Tensor& a, const at::Tensor& b) override {
    at::Tensor c = arena_.empty({a.size(0), a.size(1), b.size(2)}, a.scalar_type());
    for_chunks(a.size(0), [&](int64_t, int64_t begin, int64_t end) {
      const at::NoGradGuard no_grad;  // of this thread
      at::Tensor part = c.narrow(0, begin, end - begin);
      at::bmm_out(part, a.narrow(0, begin, end - begin), b.narrow(0, begin, end - begin));
    });
    return c;
  }

  [[nodiscard]] Normed add_norm(const at::Tensor& h, const Addend& addend, const Norm& norm,
                                at::ScalarType type) override {
    return ops::add_norm(arena_, h.contiguous(), addend, norm, type);
  }
  [[nodiscard]] at::Tensor add(const at::Tensor& h, const Addend& addend) override {
    return ops::add(arena_, h, addend);
  }
  [[nodiscard]] at::Tensor add_norm_backward(const at::Tensor& dx, const Normed& forward,
                                             const Norm& norm, const Addend& addend, at::Tensor dh,
                                             bool first) override {
    return ops::add_norm_backward(arena_, dx.defined() ? dx.contiguous() : dx, forward, norm,
                                  addend, std::move(dh), first);
  }

  [[nodiscard]] Attended attention(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                                   const RopeTable& rope) override {
    return ops::attention(arena_, qkv, shape, rope);
  }
  [[nodiscard]] at::Tensor attention_backward(const at::Tensor& qkv, const Attended& forward,
                                              const at::Tensor& dy,
                                              const kernels::AttentionShape& shape,
                                              const RopeTable& rope) override {
    return ops::attention_backward(arena_, qkv, forward, dy, shape, rope);
  }
  [[nodiscard]] at::Tensor cached_attention(const at::Tensor& qkv,
                                            const kernels::AttentionShape& shape,
                                            const RopeTable& rope,
                                            const KeyValues& cache) override {
    return ops::cached_attention(arena_, qkv, shape, rope, cache);
  }
  [[nodiscard]] at::Tensor project(const at::Tensor& x, const Q8Matrix& w) override {
    return q8_products(arena_, x, w, x.scalar_type());
  }
  [[nodiscard]] at::Tensor project_logits(const at::Tensor& x, const Q8Matrix& w) override {
    return q8_products(arena_, x, w, at::kFloat);
  }
  [[nodiscard]] at::Tensor swiglu(const at::Tensor& gate_up) override {
    return ops::swiglu(arena_, gate_up);
  }
  void swiglu_backward(at::Tensor gate_up, at::Tensor da) override {
    ops::swiglu_backward(std::move(gate_up), std::move(da));
  }

  [[nodiscard]] at::Tensor embed(const at::Tensor& table, const at::Tensor& ids) override {
    check_ids(ids, table.size(0));
    return at::embedding(table, ids);
  }
  void add_rows(const at::Tensor& ids, const at::Tensor& rows, at::Tensor table_grad) override {
    ops::add_rows(ids.contiguous(), rows.contiguous(), table_grad);
  }
  [[nodiscard]] double cross_entropy(at::Tensor logits, const at::Tensor& targets,
                                     double weight) override {
    return ops::cross_entropy(arena_, std::move(logits), targets.contiguous(), weight);
  }

  [[nodiscard]] double sum_of_squares(const at::Tensor& values) override {
    return ops::sum_of_squares(values);
  }
  void adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers) override;

  [[nodiscard]] RouterRows gather_routers(std::span<const RouterParameters> routers,
                                          std::span<const int64_t> sums, int64_t running,
                                          int64_t d) override {
    return ops::gather_routers(arena_, routers, sums, running, d);
  }
  void add_router_grads(std::span<const RouterParameters> routers, std::span<const int64_t> sums,
                        const at::Tensor& query_grad, const at::Tensor& bias_grad) override {
    ops::add_router_grads(routers, sums, query_grad, bias_grad);
  }
  void source_scalars(const at::Tensor& row, const at::Tensor& summary, const RouteEps& eps,
                      const at::Tensor& ratio, const at::Tensor& inverse) override {
    ops::source_scalars(row, summary, eps, ratio, inverse);
  }
  void read(const RunningRead& read, const PhaseOne* mix, const BlockEnd* end) override {
    ops::read(read, mix, end);
  }
  void read_backward(const RunningReadBackward& read) override { ops::read_backward(arena_, read); }
  void mix_backward(const PhaseOneBackward& mix) override { ops::mix_backward(arena_, mix); }
  void add_signed(std::span<const SignedGrad> grads, const at::Tensor& du) override {
    ops::add_signed(grads, du);
  }

 private:
  Arena arena_;
};

void CpuBackend::adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers) {
  kernels::AdamwStep step = arguments(buffers, numbers);
  step.lr = static_cast<float>(numbers.lr);
  step.correction1 = bias_correction(numbers.beta1, numbers.update);
  step.correction2 = bias_correction(numbers.beta2, numbers.update);
  step.grad_scale = static_cast<float>(numbers.grad_scale);
  ops::adamw(step, buffers.value.numel());
}

}  // namespace

std::string describe(BackendKind kind) {
  if (kind == BackendKind::kComposed) return "composed";
  if (kind == BackendKind::kCuda) return "cuda";
  return "cpu (" + kernels::to_string(kernels::chosen_kernels().isa) + ")";
}

std::unique_ptr<Backend> make_cpu_backend() { return std::make_unique<CpuBackend>(); }

}  // namespace wavroute::ops
