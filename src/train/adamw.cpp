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

void AdamW::update(ops::Backend& backend, double lr, double grad_scale) {
  const at::NoGradGuard no_grad;
  ++updates_;
  for (size_t g = 0; g < table_.groups().size(); ++g) {
    const FlatGroup& group = table_.groups()[g];
    if (group.value.numel() == 0) continue;
    const double decay = group.decay == Decay::kYes ? config_.weight_decay : 0.0;
    backend.adamw(
        {group.value, group.grad, first_[g], second_[g], group.compute},
        {lr, config_.betas[0], config_.betas[1], config_.eps, decay, updates_, grad_scale});
  }
  zeroed_ = true;
}

double gradient_norm(ops::Backend& backend, const ParameterTable& table) {
  double sum = 0.0;
  for (const FlatGroup& group : table.groups()) sum += backend.sum_of_squares(group.grad);
  // Beyond this the second moment, a float, could not hold a square.
  if (sum > std::numeric_limits<float>::max()) return std::numeric_limits<double>::infinity();
  return std::sqrt(sum);
}

}  // namespace wavroute
