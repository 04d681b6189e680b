// The operators on flat buffers of parameters.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "opbench/operator.h"
#include "ops/flat.h"
#include "ops/typed.h"

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
  const at::Tensor updates = at::ones({});
  kernels::AdamwStep step;
  step.value = ops::out<float>(value);
  step.grad = ops::out<float>(grad);
  step.first = ops::out<float>(first);
  step.second = ops::out<float>(second);
  step.copy = ops::out<kernels::Bf16>(copy);
  step.lr = kRate, step.beta1 = kBeta1, step.beta2 = kBeta2;
  step.eps = kEps, step.weight_decay = kDecay;
  step.correction1 = 1 - kBeta1, step.correction2 = 1 - kBeta2;
  const auto restore = [&] { grad.copy_(whole_grad); };
  const double copy_bytes = copy.defined() ? bytes_of({copy}) : 0;
  visit({"forward",
         std::to_string(count),
         {[&] { ops::adamw(step, count); }, restore},
         {[&] {
            at::_fused_adamw_({value}, {grad}, {first}, {second}, {}, {updates}, kRate, kBeta1,
                              kBeta2, kDecay, kEps, /*amsgrad=*/false, /*maximize=*/false);
            grad.zero_();
            if (copy.defined()) copy.copy_(value);
          },
          restore},
         2 * bytes_of({value, grad, first, second}) + copy_bytes});
}

void show_sum_of_squares(const Problem& p, const Visit& visit) {
  if (p.type != at::kFloat) return;  // gradients are float
  const at::Tensor grad = values({kPerTokenAndColumn * p.tokens * p.width});
  visit({"forward",
         std::to_string(grad.numel()),
         {[&] { (void)ops::sum_of_squares(grad); }},
         {[&] { (void)at::linalg_vector_norm(grad).item<double>(); }},
         bytes_of({grad})});
}

}  // namespace wavroute::opbench
