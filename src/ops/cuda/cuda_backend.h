// Our GPU kernels (kernels/cuda), with products and attention of libtorch, in the memory of its
// allocator. Nothing here waits for the device, but for what returns a number to the host.
#pragma once

#include <memory>
#include <vector>

#include "ops/backend.h"
#include "ops/cuda/gpu.h"

namespace wavroute::ops {

class CudaBackend final : public Backend, public RouteOperators, public DeviceSteps {
 public:
  explicit CudaBackend(std::unique_ptr<Gpu> gpu);

  [[nodiscard]] BackendKind kind() const override { return BackendKind::kCuda; }
  [[nodiscard]] bool serves(const PassNeeds& needs) const override {
    return !needs.taps && (!needs.program || needs.decoding);
  }
  [[nodiscard]] RouteOperators* routes() override { return this; }
  [[nodiscard]] DeviceSteps* steps() override { return this; }
  [[nodiscard]] Memory& memory() override { return memory_; }
  void begin_pass() override {}

  [[nodiscard]] at::Tensor project(const at::Tensor& x, const at::Tensor& w) override;
  [[nodiscard]] at::Tensor project_logits(const at::Tensor& x, const at::Tensor& w) override;
  [[nodiscard]] at::Tensor project_backward(const at::Tensor& du, const at::Tensor& w) override;
  void add_weight_grad(const at::Tensor& du, const at::Tensor& x, at::Tensor grad) override;
  void add_bias(at::Tensor rows, const at::Tensor& bias) override;
  void add_bias_grad(const at::Tensor& du, at::Tensor grad) override;
  [[nodiscard]] at::Tensor batched_product(const at::Tensor& a, const at::Tensor& b) override;
  [[nodiscard]] at::Tensor project(const at::Tensor& x, const Q8Matrix& w) override;
  [[nodiscard]] at::Tensor project_logits(const at::Tensor& x, const Q8Matrix& w) override;

  [[nodiscard]] Normed add_norm(const at::Tensor& h, const Addend& addend, const Norm& norm,
                                at::ScalarType type) override;
  [[nodiscard]] at::Tensor add(const at::Tensor& h, const Addend& addend) override;
  [[nodiscard]] at::Tensor add_norm_backward(const at::Tensor& dx, const Normed& forward,
                                             const Norm& norm, const Addend& addend, at::Tensor dh,
                                             bool first) override;

  [[nodiscard]] Attended attention(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                                   const RopeTable& rope) override;
  [[nodiscard]] at::Tensor attention_backward(const at::Tensor& qkv, const Attended& forward,
                                              const at::Tensor& dy,
                                              const kernels::AttentionShape& shape,
                                              const RopeTable& rope) override;
  [[nodiscard]] at::Tensor cached_attention(const at::Tensor& qkv,
                                            const kernels::AttentionShape& shape,
                                            const RopeTable& rope, const KeyValues& cache) override;

  [[nodiscard]] at::Tensor swiglu(const at::Tensor& gate_up) override;
  void swiglu_backward(at::Tensor gate_up, at::Tensor da) override;
  [[nodiscard]] at::Tensor embed(const at::Tensor& table, const at::Tensor& ids) override;
  void add_rows(const at::Tensor& ids, const at::Tensor& rows, at::Tensor table_grad) override;
  [[nodiscard]] double cross_entropy(at::Tensor logits, const at::Tensor& targets,
                                     double weight) override;
  [[nodiscard]] double sum_of_squares(const at::Tensor& values) override;
  void adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers) override;

  // RouteOperators: ops/cuda/routes.cpp
  [[nodiscard]] RouterRows gather_routers(std::span<const RouterParameters> routers,
                                          std::span<const int64_t> sums, int64_t running,
                                          int64_t d) override;
  void add_router_grads(std::span<const RouterParameters> routers, std::span<const int64_t> sums,
                        const at::Tensor& query_grad, const at::Tensor& bias_grad) override;
  void source_scalars(const at::Tensor& row, const at::Tensor& summary, const RouteEps& eps,
                      const at::Tensor& ratio, const at::Tensor& inverse) override;
  void read(const RunningRead& read, const PhaseOne* mix, const BlockEnd* end) override;
  void read_backward(const RunningReadBackward& read) override;
  void mix_backward(const PhaseOneBackward& mix) override;
  void add_signed(std::span<const SignedGrad> grads, const at::Tensor& du) override;

  // DeviceSteps: ops/cuda/steps.cpp
  void cross_entropy(at::Tensor logits, const at::Tensor& targets, double weight,
                     at::Tensor sum) override;
  void sum_of_squares(const at::Tensor& values, at::Tensor sum) override;
  [[nodiscard]] StepMemory step_memory(int64_t groups) override;
  void judge(const StepMemory& step) override;
  void adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers,
             const StepMemory& step) override;
  void write_numbers(const StepNumbers& numbers, at::Tensor to) const override;
  [[nodiscard]] StepResult read_result(const at::Tensor& from) const override;
  [[nodiscard]] std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    return gpu_->record(work);
  }
  [[nodiscard]] std::unique_ptr<Mailbox> mailbox(at::Tensor device) override {
    return gpu_->mailbox(std::move(device));
  }

 private:
  [[nodiscard]] kernels::cuda::Stream stream() const { return gpu_->stream(); }
  // Scratch memory, of an operator's own.
  [[nodiscard]] at::Tensor floats(int64_t count) { return memory_.empty({count}, at::kFloat); }
  // Those of a cache, on the device: one copy serves all layers of a pass.
  [[nodiscard]] at::Tensor positions_of(const KeyValues& cache);
  // The loss of each token.
  [[nodiscard]] at::Tensor token_losses(const at::Tensor& logits, const at::Tensor& targets,
                                        double weight);

  std::unique_ptr<Gpu> gpu_;
  SystemMemory memory_;
  std::unique_ptr<Backend> composed_;  // for what has no kernel here
  std::vector<int64_t> positions_;     // positions_of's last
  at::Tensor device_positions_;
};

}  // namespace wavroute::ops
