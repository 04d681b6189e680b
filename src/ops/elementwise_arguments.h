// The arguments of kernels/elementwise.h's kernels, for kernels of any device.
#pragma once

#include <cmath>

#include "ops/backend.h"
#include "ops/ids.h"
#include "ops/typed.h"

namespace wavroute::ops {

// loss: [tokens] float, of each token; the gradient replaces the logits.
template <typename C>
kernels::CrossEntropy<C> arguments(const at::Tensor& logits, const at::Tensor& targets,
                                   double weight, const at::Tensor& loss) {
  kernels::CrossEntropy<C> args;
  args.vocabulary = logits.size(1);
  args.logits = rows_out<C>(logits);
  args.targets = in<int64_t>(targets);
  args.unscored = kUnscored;
  args.want_grad = true;
  args.weight = static_cast<float>(weight);
  args.loss = out<float>(loss);
  return args;
}

// Of AdamW: 1 - beta^update.
inline float bias_correction(double beta, int64_t update) {
  return static_cast<float>(1.0 - std::pow(beta, static_cast<double>(update)));
}

// Without what changes from update to update: the learning rate, the corrections of the biases and
// the gradient's scale.
inline kernels::AdamwStep arguments(const AdamwBuffers& buffers, const AdamwNumbers& numbers) {
  kernels::AdamwStep step;
  step.value = out<float>(buffers.value);
  step.grad = out<float>(buffers.grad);
  step.first = out<float>(buffers.first);
  step.second = out<float>(buffers.second);
  step.copy = out<kernels::Bf16>(buffers.copy);
  step.beta1 = static_cast<float>(numbers.beta1);
  step.beta2 = static_cast<float>(numbers.beta2);
  step.eps = static_cast<float>(numbers.eps);
  step.weight_decay = static_cast<float>(numbers.weight_decay);
  return step;
}

}  // namespace wavroute::ops
