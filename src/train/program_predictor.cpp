#include "train/program_predictor.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <cmath>

namespace wavroute {
namespace {

// Of the penalty, relative to the mean eigenvalue of the features' products.
constexpr std::array kRidges = {1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3};

// The features' side of ridge regressions for all penalties: X X^T = V diag(values) V^T.
struct Spectrum {
  at::Tensor values, vectors;  // [n], [n, n]

  // (X X^T + ridge)^-1, [n, n]
  [[nodiscard]] at::Tensor inverse(double ridge) const {
    return at::mm(vectors / (values + ridge), vectors.t());
  }
};

// What each text's losses are predicted to be from all others: the closed form of leave-one-out,
// y - G y / diag(G) with G = (X X^T + ridge)^-1. y [n, programs] has means of 0.
at::Tensor left_out(const at::Tensor& inverse, const at::Tensor& y) {
  return y - at::mm(inverse, y) / inverse.diagonal().unsqueeze(1);
}

// The mean number of layers of the choices by predicted losses [n, programs] at a price.
double mean_layers(const at::Tensor& predicted, const at::Tensor& lengths, double price) {
  const at::Tensor choices = (predicted + price * lengths).argmin(1);
  return lengths.index_select(0, choices).mean().item<double>();
}

// The least price at which the choices are short enough: more of it never makes them longer.
double least_price(const at::Tensor& predicted, const at::Tensor& lengths, double most_layers) {
  double low = 0.0, high = 1e-6;
  if (mean_layers(predicted, lengths, low) <= most_layers) return low;
  while (mean_layers(predicted, lengths, high) > most_layers && high < 1e6) high *= 2.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (mean_layers(predicted, lengths, middle) > most_layers ? low : high) = middle;
  }
  return high;
}

}  // namespace

ProgramFit fit_programs(const ProgramScores& scores, std::span<const int64_t> lengths,
                        double most_layers) {
  const at::NoGradGuard no_grad;
  ProgramFit fit;
  fit.mean = scores.features.mean(0);
  fit.scale = scores.features.std(0, /*unbiased=*/false).clamp_min(1e-12);
  const at::Tensor x = (scores.features - fit.mean) / fit.scale;
  // How hard a text is does not matter for the choice.
  const at::Tensor relative = scores.losses - scores.losses.mean(1, /*keepdim=*/true);
  fit.bias = relative.mean(0);
  const at::Tensor y = relative - fit.bias;

  const auto [values, vectors] = at::linalg_eigh(at::mm(x, x.t()));
  const Spectrum spectrum{values.clamp_min(0.0), vectors};
  const double unit = std::max(spectrum.values.mean().item<double>(), 1e-12);
  at::Tensor predicted;
  double least = 0.0;
  for (const double relative_ridge : kRidges) {
    const double ridge = relative_ridge * unit;
    const at::Tensor candidate = left_out(spectrum.inverse(ridge), y);
    const double error = (candidate - y).square().sum().item<double>();
    if (predicted.defined() && error >= least) continue;
    predicted = candidate, least = error, fit.ridge = ridge;
  }
  fit.weights = at::mm(x.t(), at::mm(spectrum.inverse(fit.ridge), y)).t().contiguous();

  const at::Tensor layers =
      at::tensor(std::vector<int64_t>(lengths.begin(), lengths.end()), at::kLong).to(at::kDouble);
  const at::Tensor costs = predicted + fit.bias;
  fit.price = least_price(costs, layers, most_layers);
  fit.mean_layers = mean_layers(costs, layers, fit.price);
  return fit;
}

}  // namespace wavroute
