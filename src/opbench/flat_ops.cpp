// The operators on flat buffers of parameters.
#include <ATen/ATen.h>

#include "opbench/operator.h"
#include "ops/backend.h"

namespace wavroute::opbench {
namespace {

constexpr int64_t kPerTokenAndColumn = 4;

}  // namespace

void show_adamw(const Problem& p, const Visit& visit) {
  constexpr double kRate = 1e-3, kBeta1 = 0.9, kBeta2 = 0.95, kEps = 1e-8, kDecay = 0.1;
  const int64_t count = kPerTokenAndColumn * p.tokens * p.width;
  const at::Tensor value = values({count}), whole_grad = values({count}), grad = whole_grad.clone();
  const at::Tensor first = at::zeros({count}), second = at::zeros({count});
  // With bfloat16 the update writes the copy that products multiply by.
  const at::Tensor copy = p.type == at::kFloat ? at::Tensor() : value.to(p.type);
  const ops::AdamwBuffers buffers{value, grad, first, second, copy};
  const ops::AdamwNumbers numbers{kRate, kBeta1, kBeta2, kEps, kDecay};
  const auto ours = ops::make_cpu_backend(), composed = ops::make_composed_backend(at::kCPU);
  const at::Tensor fresh = value.clone();
  const auto restore = [&] {
    grad.copy_(whole_grad);
    value.copy_(fresh);
    first.zero_();
    second.zero_();
  };
  const auto run = [&](ops::Backend& backend) -> Tensors {
    backend.adamw(buffers, numbers);
    return {value, first, second};
  };
  const double copy_bytes = copy.defined() ? bytes_of({copy}) : 0;
  visit({"forward",
         std::to_string(count),
         {[&] { return run(*ours); }, restore},
         {[&] { return run(*composed); }, restore},
         2 * bytes_of({value, grad, first, second}) + copy_bytes});
}

void show_sum_of_squares(const Problem& p, const Visit& visit) {
  if (p.type != at::kFloat) return;  // gradients are float
  const at::Tensor grad = values({kPerTokenAndColumn * p.tokens * p.width});
  const auto ours = ops::make_cpu_backend(), composed = ops::make_composed_backend(at::kCPU);
  const auto run = [&](ops::Backend& backend) -> Tensors {
    return {at::scalar_tensor(backend.sum_of_squares(grad), at::kDouble)};
  };
  visit({"forward",
         std::to_string(grad.numel()),
         {[&] { return run(*ours); }},
         {[&] { return run(*composed); }},
         bytes_of({grad})});
}

}  // namespace wavroute::opbench
