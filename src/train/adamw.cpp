#include "train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/flat.h"

namespace wavroute {
namespace {

// Our kernels work on the CPU, in fp32.
bool takes_kernels(const at::Tensor& flat) {
  return flat.is_cpu() && flat.scalar_type() == at::kFloat;
}

}  // namespace

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

void AdamW::update(double lr, double grad_scale) {
  const at::NoGradGuard no_grad;
  ++updates_;
  const bool fused = takes_kernels(table_.groups().front().value);
  for (size_t g = 0; g < table_.groups().size(); ++g) {
    if (table_.groups()[g].value.numel() == 0) continue;
    fused ? update_fused(g, lr, grad_scale) : update_composed(g, lr, grad_scale);
  }
  if (!fused) table_.refresh_compute();
  zeroed_ = fused;
}

void AdamW::update_fused(size_t g, double lr, double grad_scale) {
  const FlatGroup& group = table_.groups()[g];
  const auto number = [](double x) { return static_cast<float>(x); };
  const auto t = static_cast<double>(updates_);
  kernels::AdamwStep step;
  step.value = group.value.mutable_data_ptr<float>();
  step.grad = group.grad.mutable_data_ptr<float>();
  step.first = first_[g].mutable_data_ptr<float>();
  step.second = second_[g].mutable_data_ptr<float>();
  if (group.compute.defined()) {
    step.copy = static_cast<kernels::Bf16*>(group.compute.mutable_data_ptr());
  }
  step.lr = number(lr);
  step.beta1 = number(config_.betas[0]);
  step.beta2 = number(config_.betas[1]);
  step.eps = number(config_.eps);
  step.weight_decay = group.decay == Decay::kYes ? number(config_.weight_decay) : 0.0F;
  step.correction1 = number(1.0 - std::pow(config_.betas[0], t));
  step.correction2 = number(1.0 - std::pow(config_.betas[1], t));
  step.grad_scale = number(grad_scale);
  ops::adamw(step, group.value.numel());
}

void AdamW::update_composed(size_t g, double lr, double grad_scale) {
  FlatGroup& group = table_.groups()[g];
  if (grad_scale != 1.0) group.grad.mul_(grad_scale);
  const at::Tensor step =
      at::full({}, static_cast<double>(updates_), group.value.options().dtype(at::kFloat));
  at::_fused_adamw_({group.value}, {group.grad}, {first_[g]}, {second_[g]}, {}, {step}, lr,
                    config_.betas[0], config_.betas[1],
                    group.decay == Decay::kYes ? config_.weight_decay : 0.0, config_.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}

double gradient_norm(const ParameterTable& table) {
  double sum = 0.0;
  for (const FlatGroup& group : table.groups()) {
    if (takes_kernels(group.grad)) {
      sum += ops::sum_of_squares(group.grad);
    } else {
      const double norm = at::linalg_vector_norm(group.grad).item<double>();
      sum += norm * norm;
    }
  }
  // Beyond this the second moment, a float, could not hold a square.
  if (sum > std::numeric_limits<float>::max()) return std::numeric_limits<double>::infinity();
  return std::sqrt(sum);
}

}  // namespace wavroute
