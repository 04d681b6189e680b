#include "train/step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace wavroute {
namespace {

// Adds the gradients of the batch to those of the model, micro-batch by micro-batch.
TrainStepResult add_gradients(Decoder& model, const Batch& batch, const TrainStepPlan& plan,
                              const Pass& pass) {
  const auto tokens = static_cast<double>(batch.rows() * batch.context());
  PassOptions options;
  options.pass = pass;
  options.recompute = plan.recompute;
  options.loss_weight = 1.0 / tokens;

  TrainStepResult result;
  for (int64_t begin = 0; begin < batch.rows(); begin += plan.micro_batch) {
    const Batch part = batch.slice(begin, std::min(begin + plan.micro_batch, batch.rows()));
    const double share = static_cast<double>(part.rows()) / static_cast<double>(batch.rows());
    options.auxiliary_weight = share;
    const PassResult of_part = training_pass(model, part.inputs.to(model.device()),
                                             part.targets.to(model.device()), options);
    result.loss += of_part.loss_sum / tokens;
    result.auxiliary += of_part.auxiliary * share;
    result.mean_depth += of_part.mean_depth * share;
  }
  return result;
}

}  // namespace

bool TrainStepResult::is_finite() const {
  return std::isfinite(loss) && std::isfinite(auxiliary) && std::isfinite(grad_norm);
}

TrainStepResult train_step(Decoder& model, AdamW& optimizer, const Batch& batch,
                           const TrainStepPlan& plan, const Pass& pass, double lr) {
  if (!optimizer.take_zeroed()) model.parameters().zero_grad();
  TrainStepResult result = add_gradients(model, batch, plan, pass);
  result.grad_norm = gradient_norm(model.backend(), model.parameters());
  if (!result.is_finite()) return result;
  const bool clips = plan.clip > 0.0 && result.grad_norm > plan.clip;
  optimizer.update(model.backend(), lr, clips ? plan.clip / result.grad_norm : 1.0);
  return result;
}

}  // namespace wavroute
