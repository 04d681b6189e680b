// What the tests of the operators share: random arguments, and a call with its gradients.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tests/random_values.h"
#include "wavroute/functional.h"

namespace wavroute::functional {

using Tensors = std::vector<at::Tensor>;

using testing::random_values;

// A call of an operator: its differentiable results from the arguments that get a gradient.
using Call = std::function<Tensors(const Tensors&)>;

struct Outcome {
  Tensors results;
  Tensors gradients;  // by argument, undefined where none came
};

// The results and the gradients of sum_r <weight_r, result_r>; weights are normal numbers that a
// bfloat16 holds.
inline Outcome run(const Call& call, const Tensors& arguments) {
  Tensors leaves;
  for (const at::Tensor& argument : arguments) {
    leaves.push_back(argument.detach().clone().set_requires_grad(true));
  }
  Outcome outcome;
  Tensors reached, weights;
  for (const at::Tensor& result : call(leaves)) {
    outcome.results.push_back(result.detach());
    if (!result.requires_grad()) continue;
    reached.push_back(result);
    weights.push_back(random_values(result.sizes().vec(),
                                    "weight" + std::to_string(outcome.results.size()),
                                    at::kBFloat16)
                          .to(result.device(), result.scalar_type()));
  }
  torch::autograd::backward(reached, weights);
  for (const at::Tensor& leaf : leaves) outcome.gradients.push_back(leaf.grad());
  return outcome;
}

inline Tensors to_type(const Tensors& tensors, at::ScalarType type) {
  Tensors result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.to(type));
  return result;
}

// Root mean square of the error, relative to that of `expected`, or to `scale` where that is more.
inline double error_of(const at::Tensor& actual, const at::Tensor& expected, double scale = 1e-12) {
  if (expected.numel() == 0) return actual.sizes() == expected.sizes() ? 0.0 : 1.0;
  if (actual.sizes() != expected.sizes()) return 1e300;
  const double error = (actual.to(at::kCPU, at::kDouble) - expected).norm().item<double>();
  const double norm = expected.norm().item<double>();
  return std::isnan(error) ? 1e300 : error / std::max({norm, scale, 1e-12});
}

// `scales`: of the gradients of the first arguments, for what is a difference of larger numbers.
inline void expect_close(const Outcome& actual, const Outcome& expected, double tolerance,
                         std::span<const double> scales = {}) {
  for (size_t i = 0; i < expected.results.size(); ++i) {
    EXPECT_LE(error_of(actual.results[i], expected.results[i]), tolerance) << "result " << i;
  }
  for (size_t i = 0; i < expected.gradients.size(); ++i) {
    const at::Tensor &got = actual.gradients[i], &want = expected.gradients[i];
    if (got.defined() && want.defined()) {
      EXPECT_LE(error_of(got, want, i < scales.size() ? scales[i] : 1e-12), tolerance)
          << "gradient " << i;
    } else if (got.defined() || want.defined()) {  // none is as good as zeros
      EXPECT_EQ((got.defined() ? got : want).abs().sum().item<double>(), 0.0) << "gradient " << i;
    }
  }
}

// The gradients against central differences of sum_r <weight_r, reference_r>, everything in double;
// at most 60 numbers of an argument.
inline void expect_differences(const Call& call, const Call& reference, const Tensors& arguments,
                               double tolerance = 1e-6) {
  const Outcome outcome = run(call, arguments);
  const auto loss = [&](const Tensors& at) {
    const Tensors results = reference(at);
    double sum = 0.0;
    for (size_t r = 0; r < results.size(); ++r) {
      sum += (results[r] * random_values(results[r].sizes().vec(), "weight" + std::to_string(r + 1),
                                         at::kBFloat16))
                 .sum()
                 .item<double>();
    }
    return sum;
  };
  const Tensors values = reference(arguments);
  for (size_t r = 0; r < values.size(); ++r) {
    EXPECT_LE(error_of(outcome.results[r], values[r]), 1e-12) << "result " << r;
  }
  for (size_t i = 0; i < arguments.size(); ++i) {
    Tensors moved = arguments;
    moved[i] = arguments[i].clone();
    double* numbers = moved[i].mutable_data_ptr<double>();
    const at::Tensor& reached = outcome.gradients[i];
    const at::Tensor gradient = reached.defined() ? reached : at::zeros_like(arguments[i]);
    if (gradient.numel() == 0) continue;
    const double scale = gradient.abs().max().item<double>();
    const int64_t stride = std::max<int64_t>(1, moved[i].numel() / 60);
    for (int64_t c = 0; c < moved[i].numel(); c += stride) {
      const double base = numbers[c], step = 1e-5;
      numbers[c] = base + step;
      const double above = loss(moved);
      numbers[c] = base - step;
      const double below = loss(moved);
      numbers[c] = base;
      EXPECT_NEAR(gradient.flatten()[c].item<double>(), (above - below) / (2 * step),
                  tolerance * (scale + 1e-3))
          << "argument " << i << ", number " << c;
    }
  }
}

// Finished sources: e, and blocks of a summary with two details, raw sums.
struct Sources {
  Tensors rows;
  at::Tensor ratio, inverse;  // [n, tokens]
};
inline Sources random_sources(int64_t n, int64_t tokens, int64_t d, const Eps& eps,
                              at::ScalarType type = at::kFloat) {
  Sources sources;
  Tensors ratios, inverses;
  at::Tensor summary;
  for (int64_t j = 0; j < n; ++j) {
    const bool is_detail = j > 0 && (j - 1) % 3 > 0;
    at::Tensor row = random_values({tokens, d}, "row" + std::to_string(j), type);
    if (is_detail) row = row * 0.125;  // matching has to enlarge it
    if (!is_detail) summary = row;
    const SourceScalars scalars = source_scalars(row, is_detail ? summary : at::Tensor(), eps);
    sources.rows.push_back(row);
    ratios.push_back(scalars.ratio);
    inverses.push_back(scalars.inverse);
  }
  sources.ratio = at::stack(ratios);
  sources.inverse = at::stack(inverses);
  return sources;
}

// The sign of part k in form f (docs: functional.h).
inline double sign_in(int64_t form, int64_t part) {
  return form > 0 && (part >> (form - 1) & 1) != 0 ? -1.0 : 1.0;
}

}  // namespace wavroute::functional
