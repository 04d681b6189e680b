#include "train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace wavroute {
namespace {

std::vector<FlatPart> whole_groups(const ParameterTable& table) {
  std::vector<FlatPart> parts;
  for (size_t g = 0; g < table.groups().size(); ++g) {
    parts.push_back({g, {0, table.groups()[g].value.numel()}});
  }
  return parts;
}

}  // namespace

AdamW::AdamW(ParameterTable& table, const OptimizerConfig& config)
    : AdamW(table, config, whole_groups(table)) {
  is_whole_ = true;
}

AdamW::AdamW(ParameterTable& table, const OptimizerConfig& config, std::vector<FlatPart> parts)
    : table_(table), config_(config), is_whole_(false), parts_(std::move(parts)) {
  // As a float, a smaller eps would be 0, and a parameter whose gradient was always 0 would move by
  // 0 / 0.
  config_.eps = std::max(config_.eps, static_cast<double>(std::numeric_limits<float>::min()));
  for (const FlatPart& part : parts_) {
    const at::Tensor value = part.of(table.groups()[part.group].value);
    first_.push_back(at::zeros_like(value));
    second_.push_back(at::zeros_like(value));
  }
}

template <typename Update>
void AdamW::for_groups(const Update& update) const {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const FlatPart& part = parts_[i];
    const FlatGroup& group = table_.groups()[part.group];
    if (part.range.count() == 0) continue;
    ops::AdamwNumbers numbers;
    numbers.beta1 = config_.betas[0];
    numbers.beta2 = config_.betas[1];
    numbers.eps = config_.eps;
    numbers.weight_decay = group.decay == Decay::kYes ? config_.weight_decay : 0.0;
    const at::Tensor compute = group.compute.defined() ? part.of(group.compute) : group.compute;
    update({part.of(group.value), part.of(group.grad), first_[i], second_[i], compute}, numbers);
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
  zeroed_ = is_whole_;
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
