#include "train/step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "train/process.h"

namespace wavroute {
namespace {

// Adds the gradients of the batch to those of the model, micro-batch by micro-batch.
TrainStepResult add_gradients(Decoder& model, const Batch& batch, const TrainStepPlan& plan,
                              const Pass& pass) {
  const int64_t all_rows = plan.sum != nullptr ? plan.all_rows : batch.rows();
  const auto tokens = static_cast<double>(all_rows * batch.context());
  PassOptions options;
  options.pass = pass;
  options.recompute = plan.recompute;
  options.loss_weight = 1.0 / tokens;

  TrainStepResult result;
  for (int64_t begin = 0; begin < batch.rows(); begin += plan.micro_batch) {
    const Batch part = batch.slice(begin, std::min(begin + plan.micro_batch, batch.rows()));
    const double share = static_cast<double>(part.rows()) / static_cast<double>(all_rows);
    if (plan.sum != nullptr && begin + part.rows() == batch.rows()) {
      options.on_final = [&plan](int64_t layer) { plan.sum->layer_is_final(layer); };
    }
    options.auxiliary_weight = share;
    const PassResult of_part = training_pass(model, part.inputs.to(model.device()),
                                             part.targets.to(model.device()), options);
    result.loss += of_part.loss_sum / tokens;
    result.auxiliary += of_part.auxiliary * share;
    result.mean_depth += of_part.mean_depth * share;
  }
  return result;
}

// Gradients and figures of all processes in place of this one's.
void sum_over_processes(TrainStepResult& result, GradientSum& sum) {
  sum.finish();
  std::array<double, 4> figures = {result.loss, result.auxiliary, result.mean_depth,
                                   StopSignal::requested() ? 1.0 : 0.0};
  sum.processes().sum(figures);
  result.loss = figures[0];
  result.auxiliary = figures[1];
  result.mean_depth = figures[2];
  result.stop_asked = figures[3] > 0.0;
}

}  // namespace

bool TrainStepResult::is_finite() const {
  return std::isfinite(loss) && std::isfinite(auxiliary) && std::isfinite(grad_norm);
}

TrainStepResult train_step(Decoder& model, AdamW& optimizer, const Batch& batch,
                           const TrainStepPlan& plan, const Pass& pass, double lr) {
  if (!optimizer.take_zeroed()) model.parameters().zero_grad();
  TrainStepResult result = add_gradients(model, batch, plan, pass);
  if (plan.sum != nullptr) sum_over_processes(result, *plan.sum);
  result.grad_norm =
      plan.sum != nullptr ? plan.sum->norm() : gradient_norm(model.backend(), model.parameters());
  if (!result.is_finite()) return result;
  const bool clips = plan.clip > 0.0 && result.grad_norm > plan.clip;
  optimizer.update(model.backend(), lr, clips ? plan.clip / result.grad_norm : 1.0);
  if (plan.sum != nullptr && plan.sum->is_sharded()) plan.sum->gather_parameters();
  return result;
}

}  // namespace wavroute
