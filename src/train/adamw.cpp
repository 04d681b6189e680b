#include "train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace wavroute {
AdamW::AdamW(ParameterTable& table, const OptimizerConfig& config)
    : table_(table), config_(config) {
  // As a float, a smaller eps would be 0, and a parameter whose gradient was always 0 would move by
  // 0 / 0.
  config_.eps = std::max(config_.eps, static_cast<double>(std::numeric_limits<float>::min()));
  for (const FlatGroup& group : table.groups()) {
    first_.push_back(at::zeros_like(group.value));
    second_.push_back(at::zeros_like(group.value));
  }
}

template <typename Update>
void AdamW::for_groups(const Update& update) const {
  const at::NoGradGuard no_grad;
  for (size_t g = 0; g < table_.groups().size(); ++g) {
    const FlatGroup& group = table_.groups()[g];
    if (group.value.numel() == 0) continue;
    ops::AdamwNumbers numbers;
    numbers.beta1 = config_.betas[0];
    numbers.beta2 = config_.betas[1];
    numbers.eps = config_.eps;
    numbers.weight_decay = group.decay == Decay::kYes ? config_.weight_decay : 0.0;
    update({group.value, group.grad, first_[g], second_[g], group.compute}, numbers);
  }
}

void AdamW::update(ops::Backend& backend, double lr, double grad_scale) {
  ++updates_;
  for_groups([&](const ops::AdamwBuffers& buffers, ops::AdamwNumbers numbers) {
    numbers.lr = lr;
    numbers.update = updates_;
    numbers.grad_scale = grad_scale;
    backend.adamw(buffers, numbers);
  });
  zeroed_ = true;
}

void AdamW::update(ops::DeviceSteps& steps, const ops::StepMemory& step) const {
  for_groups([&](const ops::AdamwBuffers& buffers, const ops::AdamwNumbers& numbers) {
    steps.adamw(buffers, numbers, step);
  });
}

double gradient_norm(ops::Backend& backend, const ParameterTable& table) {
  double sum = 0.0;
  for (const FlatGroup& group : table.groups()) sum += backend.sum_of_squares(group.grad);
  // Beyond this the second moment, a float, could not hold a square.
  if (sum > std::numeric_limits<float>::max()) return std::numeric_limits<double>::infinity();
  return std::sqrt(sum);
}

}  // namespace wavroute
