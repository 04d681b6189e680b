// The optimizer of the back end `cuda`, and steps whose numbers stay on the device.
#include "kernels/cuda/step.h"

#include <ATen/ATen.h>

#include <cstring>

#include "ops/cuda/cuda_backend.h"
#include "ops/elementwise_arguments.h"

namespace wavroute::ops {
namespace {

namespace cuda = kernels::cuda;

// The content of a tensor of bytes, on the host.
template <typename T>
T content(const at::Tensor& bytes) {
  T value;
  std::memcpy(&value, bytes.const_data_ptr(), sizeof value);
  return value;
}
template <typename T>
at::Tensor bytes_of(const T& value) {
  at::Tensor bytes = at::empty({static_cast<int64_t>(sizeof value)}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), &value, sizeof value);
  return bytes;
}

}  // namespace

void CudaBackend::adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers) {
  cuda::AdamwScalars scalars;
  scalars.lr = static_cast<float>(numbers.lr);
  scalars.correction1 = bias_correction(numbers.beta1, numbers.update);
  scalars.correction2 = bias_correction(numbers.beta2, numbers.update);
  scalars.grad_scale = static_cast<float>(numbers.grad_scale);
  const at::Tensor there = bytes_of(scalars).to(gpu_->device());
  cuda::adamw(arguments(buffers, numbers), in<cuda::AdamwScalars>(there), buffers.value.numel(),
              stream());
}

double CudaBackend::sum_of_squares(const at::Tensor& values) {
  at::Tensor sum = memory_.empty({}, at::kDouble).zero_();
  sum_of_squares(values, sum);
  return sum.item<double>();
}

void CudaBackend::cross_entropy(at::Tensor logits, const at::Tensor& targets, double weight,
                                at::Tensor sum) {
  sum.add_(token_losses(logits, targets, weight).sum(at::kDouble));
}

void CudaBackend::sum_of_squares(const at::Tensor& values, at::Tensor sum) {
  const int64_t count = values.numel();
  const at::Tensor scratch = memory_.empty({cuda::square_parts(count)}, at::kDouble),
                   own = memory_.empty({}, at::kDouble);
  cuda::sum_of_squares(in<float>(values), count, out<double>(scratch), out<double>(own), stream());
  sum.add_(own);
}

StepMemory CudaBackend::step_memory(int64_t groups) {
  StepMemory step;
  step.numbers = bytes_of(cuda::StepInput{}).to(gpu_->device());
  step.sums = memory_.empty({3}, at::kDouble).zero_();
  step.squares = memory_.empty({groups}, at::kDouble).zero_();
  step.update = bytes_of(cuda::AdamwScalars{}).to(gpu_->device());
  step.result = bytes_of(cuda::StepOutcome{}).to(gpu_->device());
  return step;
}

void CudaBackend::judge(const StepMemory& step) {
  static_assert(sizeof(cuda::StepSums) == 3 * sizeof(double));
  cuda::judge_step(in<cuda::StepInput>(step.numbers), in<cuda::StepSums>(step.sums),
                   in<double>(step.squares), step.squares.numel(),
                   out<cuda::AdamwScalars>(step.update), out<cuda::StepOutcome>(step.result),
                   stream());
}

void CudaBackend::adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers,
                        const StepMemory& step) {
  cuda::adamw(arguments(buffers, numbers), in<cuda::AdamwScalars>(step.update),
              buffers.value.numel(), stream());
}

void CudaBackend::write_numbers(const StepNumbers& numbers, at::Tensor to) const {
  const cuda::StepInput input{numbers.lr, numbers.clip,
                              bias_correction(numbers.beta1, numbers.update),
                              bias_correction(numbers.beta2, numbers.update)};
  std::memcpy(to.mutable_data_ptr(), &input, sizeof input);
}

StepResult CudaBackend::read_result(const at::Tensor& from) const {
  const auto outcome = content<cuda::StepOutcome>(from);
  return {outcome.sums.loss, outcome.sums.auxiliary, outcome.sums.mean_depth, outcome.grad_norm,
          outcome.is_finite != 0};
}

}  // namespace wavroute::ops
