#include "train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

namespace wavroute {

AdamW::AdamW(ParameterTable& table, const OptimizerConfig& config)
    : table_(table), config_(config) {
  for (const FlatGroup& group : table.groups()) {
    first_.push_back(at::zeros_like(group.value));
    second_.push_back(at::zeros_like(group.value));
  }
}

void AdamW::update(double lr) {
  const at::NoGradGuard no_grad;
  ++updates_;
  for (size_t g = 0; g < table_.groups().size(); ++g) {
    const FlatGroup& group = table_.groups()[g];
    if (group.value.numel() == 0) continue;
    const at::Tensor step =
        at::full({}, static_cast<double>(updates_), group.value.options().dtype(at::kFloat));
    at::_fused_adamw_({group.value}, {group.grad}, {first_[g]}, {second_[g]}, {}, {step}, lr,
                      config_.betas[0], config_.betas[1],
                      group.decay == Decay::kYes ? config_.weight_decay : 0.0, config_.eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  }
  table_.refresh_compute();
}

double gradient_norm(const ParameterTable& table) {
  double sum = 0.0;
  for (const FlatGroup& group : table.groups()) {
    const double norm = at::linalg_vector_norm(group.grad).item<double>();
    sum += norm * norm;
  }
  return std::sqrt(sum);
}

}  // namespace wavroute
