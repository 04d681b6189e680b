#include "train/recorded_stepper.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "ops/ids.h"

namespace wavroute {

RecordedStepper::RecordedStepper(Decoder& model, AdamW& optimizer, const TrainStepPlan& plan)
    : model_(model),
      optimizer_(optimizer),
      plan_(plan),
      steps_(*model.backend().steps()),
      step_(steps_.step_memory(std::ssize(model.parameters().groups()))) {
  model.parameters().zero_grad();
}

void RecordedStepper::make_memory(const Batch& batch) {
  inputs_ = batch.inputs.to(model_.device(), /*non_blocking=*/false, /*copy=*/true);
  targets_ = batch.targets.to(model_.device(), /*non_blocking=*/false, /*copy=*/true);
  for (Slot& slot : slots_) {
    slot.inputs = steps_.mailbox(inputs_);
    slot.targets = steps_.mailbox(targets_);
    slot.numbers = steps_.mailbox(step_.numbers);
    slot.result = steps_.mailbox(step_.result);
  }
}

void RecordedStepper::run(const Pass& pass) {
  const Batch batch{inputs_, targets_};
  const auto rows = static_cast<double>(batch.rows());
  step_.sums.zero_();
  step_.squares.zero_();
  PassOptions options;
  options.pass = pass;
  options.recompute = plan_.recompute;
  options.loss_weight = 1.0 / (rows * static_cast<double>(batch.context()));
  options.sums = step_.sums;
  for (int64_t begin = 0; begin < batch.rows(); begin += plan_.micro_batch) {
    const Batch part = batch.slice(begin, std::min(begin + plan_.micro_batch, batch.rows()));
    options.auxiliary_weight = static_cast<double>(part.rows()) / rows;
    static_cast<void>(training_pass(model_, part.inputs, part.targets, options));
  }
  const std::vector<FlatGroup>& groups = model_.parameters().groups();
  for (size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].grad.numel() == 0) continue;
    steps_.sum_of_squares(groups[g].grad, step_.squares[static_cast<int64_t>(g)]);
  }
  steps_.judge(step_);
  optimizer_.update(steps_, step_);
}

RecordedStepper::Kind RecordedStepper::kind_of(const Pass& pass) const {
  return {executed_layers(model_, pass), model_.residual().options(pass.progress)};
}

// The first time a step is run as it is: libraries set themselves up.
void RecordedStepper::run_recorded(const Pass& pass) {
  if (!records_) return run(pass);
  const auto [place, is_new] = recordings_.try_emplace(kind_of(pass));
  std::unique_ptr<ops::Recording>& recording = place->second;
  if (is_new) return run(pass);
  if (recording == nullptr) {
    try {
      recording = steps_.record([this, pass] { run(pass); });
    } catch (const c10::Error& error) {  // nothing of it has run
      records_ = false;
      trouble_ = error.what_without_backtrace();
      return run(pass);
    }
  }
  recording->start();
}

void RecordedStepper::start(const Batch& batch, const Pass& pass, double lr) {
  TORCH_INTERNAL_ASSERT(started_ - finished_ < kSlots, "too many steps are under way");
  const at::NoGradGuard no_grad;
  const int64_t vocabulary = model_.spec().vocab_size;
  ops::check_ids(batch.inputs, vocabulary);
  ops::check_ids(batch.targets, vocabulary, /*targets=*/true);
  if (!inputs_.defined()) make_memory(batch);
  TORCH_INTERNAL_ASSERT(batch.inputs.sizes() == inputs_.sizes(), "batches have one size");

  Slot& slot = slots_[static_cast<size_t>(started_ % kSlots)];
  slot.update = optimizer_.updates() + 1;
  optimizer_.set_updates(slot.update);
  slot.inputs->host().copy_(batch.inputs);
  slot.targets->host().copy_(batch.targets);
  const OptimizerConfig& optimizer = optimizer_.config();
  steps_.write_numbers({lr, plan_.clip, optimizer.betas[0], optimizer.betas[1], slot.update},
                       slot.numbers->host());
  for (ops::Mailbox* mailbox : {slot.inputs.get(), slot.targets.get(), slot.numbers.get()}) {
    mailbox->send();
  }
  run_recorded(pass);
  slot.result->fetch();
  ++started_;
}

TrainStepResult RecordedStepper::finish() {
  TORCH_INTERNAL_ASSERT(finished_ < started_, "no step is under way");
  const Slot& slot = slots_[static_cast<size_t>(finished_ % kSlots)];
  slot.result->wait();
  ++finished_;
  const ops::StepResult result = steps_.read_result(slot.result->host());
  TrainStepResult step;
  step.loss = result.loss / static_cast<double>(inputs_.numel());
  step.auxiliary = result.auxiliary;
  step.mean_depth = result.mean_depth;
  step.grad_norm = result.grad_norm;
  // Nothing was updated then, nor will be.
  if (!result.is_finite) optimizer_.set_updates(std::min(optimizer_.updates(), slot.update - 1));
  return step;
}

}  // namespace wavroute
