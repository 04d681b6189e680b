#include "train/step.h"

#include <ATen/ATen.h>

#include <cmath>

namespace wavroute {
namespace {

std::span<int64_t> numbers(at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<int64_t>(), static_cast<size_t>(tensor.numel())};
}

}  // namespace

bool TrainStepResult::is_finite() const {
  return std::isfinite(loss) && std::isfinite(auxiliary) && std::isfinite(grad_norm);
}

TrainStepResult train_step(Decoder& model, AdamW& optimizer, const TrainStepPlan& plan,
                           const FillRows& fill, const Pass& pass, double lr) {
  if (!optimizer.take_zeroed()) model.parameters().zero_grad();
  const auto tokens = static_cast<double>(plan.batch * plan.context);
  PassOptions options;
  options.pass = pass;
  options.recompute = plan.recompute;
  options.loss_weight = 1.0 / tokens;

  TrainStepResult result;
  for (int64_t begin = 0; begin < plan.batch; begin += plan.micro_batch) {
    const int64_t rows = std::min(plan.micro_batch, plan.batch - begin);
    at::Tensor inputs = at::empty({rows, plan.context}, at::kLong);
    at::Tensor targets = at::empty_like(inputs);
    fill(begin, begin + rows, numbers(inputs), numbers(targets));
    const double share = static_cast<double>(rows) / static_cast<double>(plan.batch);
    options.auxiliary_weight = share;
    const PassResult pass_result =
        training_pass(model, inputs.to(model.device()), targets.to(model.device()), options);
    result.loss += pass_result.loss_sum / tokens;
    result.auxiliary += pass_result.auxiliary * share;
    result.mean_depth += pass_result.mean_depth * share;
  }
  result.grad_norm = gradient_norm(model.backend(), model.parameters());
  if (!result.is_finite()) return result;
  const bool clips = plan.clip > 0.0 && result.grad_norm > plan.clip;
  optimizer.update(model.backend(), lr, clips ? plan.clip / result.grad_norm : 1.0);
  return result;
}

}  // namespace wavroute
