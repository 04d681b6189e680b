#include "report/scaling_fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace wavroute {
namespace {

constexpr double kLeastExponent = 0.01, kMostExponent = 4.0;
constexpr int kGrid = 400;

// The best limit and amplitude for one exponent, and what they leave.
struct Candidate {
  double exponent = 0.0, limit = 0.0, amplitude = 0.0;
  double squares = std::numeric_limits<double>::infinity();
};

// A straight line of the losses over x = C^-alpha; one that would begin below zero goes through it.
Candidate at_exponent(std::span<const ScalingPoint> points, double exponent) {
  const auto n = static_cast<double>(points.size());
  double x_sum = 0.0, y_sum = 0.0, xx = 0.0, xy = 0.0;
  for (const ScalingPoint& point : points) {
    const double x = std::pow(point.compute, -exponent);
    x_sum += x;
    y_sum += point.loss;
    xx += x * x;
    xy += x * point.loss;
  }
  Candidate result;
  result.exponent = exponent;
  const double spread = xx - x_sum * x_sum / n;
  result.amplitude = (xy - x_sum * y_sum / n) / spread;
  result.limit = (y_sum - result.amplitude * x_sum) / n;
  if (result.limit < 0.0) {
    result.limit = 0.0;
    result.amplitude = xy / xx;
  }
  result.squares = 0.0;
  for (const ScalingPoint& point : points) {
    const double left =
        point.loss - result.limit - result.amplitude * std::pow(point.compute, -exponent);
    result.squares += left * left;
  }
  return result;
}

// The grid's exponents are evenly spaced in their logarithm.
double grid_exponent(double place) {
  return kLeastExponent * std::pow(kMostExponent / kLeastExponent, place / kGrid);
}

Candidate best_candidate(std::span<const ScalingPoint> points) {
  int best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= kGrid; ++i) {
    const double squares = at_exponent(points, grid_exponent(i)).squares;
    if (squares < least) {
      least = squares;
      best = i;
    }
  }
  // Golden section between the neighbours of the best.
  double low = std::max(0, best - 1), high = std::min(kGrid, best + 1);
  const double golden = (std::sqrt(5.0) - 1.0) / 2.0;
  for (int i = 0; i < 100; ++i) {
    const double left = high - golden * (high - low), right = low + golden * (high - low);
    const bool is_left = at_exponent(points, grid_exponent(left)).squares <
                         at_exponent(points, grid_exponent(right)).squares;
    (is_left ? high : low) = is_left ? right : left;
  }
  return at_exponent(points, grid_exponent((low + high) / 2.0));
}

}  // namespace

double ScalingFit::loss_at(double compute) const {
  return limit + amplitude * std::pow(compute, -exponent);
}

std::optional<double> ScalingFit::compute_for(double loss) const {
  if (!(loss > limit)) return std::nullopt;
  const double compute = std::pow(amplitude / (loss - limit), 1.0 / exponent);
  return std::isfinite(compute) ? std::optional(compute) : std::nullopt;
}

ScalingResult fit_scaling(std::span<const ScalingPoint> points) {
  std::set<double> computes;
  double logs = 0.0;
  for (const ScalingPoint& point : points) {
    computes.insert(point.compute);
    logs += std::log(point.compute);
  }
  if (computes.size() < kFewestBudgets) {
    return {{}, fmt::format("a fit needs {} budgets, given {}", kFewestBudgets, computes.size())};
  }
  // Around 1, so that the powers of an exponent that is tried stay within a double's range.
  const double unit = std::exp(logs / static_cast<double>(points.size()));
  std::vector<ScalingPoint> scaled(points.begin(), points.end());
  for (ScalingPoint& point : scaled) point.compute /= unit;
  const Candidate best = best_candidate(scaled);
  constexpr double kAtTheEnd = 0.999;
  if (!(best.amplitude > 0.0) || !std::isfinite(best.squares) ||
      best.exponent > kAtTheEnd * kMostExponent) {
    return {{}, "the losses do not fall as a power of the compute"};
  }
  return {ScalingFit{best.limit, best.amplitude * std::pow(unit, best.exponent), best.exponent},
          {}};
}

}  // namespace wavroute
