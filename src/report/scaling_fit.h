// How a loss falls with compute: L = L_inf + A C^-alpha.
#pragma once

#include <optional>
#include <span>
#include <string>

namespace wavroute {

struct ScalingPoint {
  double compute = 0.0;  // in any unit, > 0
  double loss = 0.0;     // nats per token
};

struct ScalingFit {
  double limit = 0.0;      // L_inf >= 0, the loss of endless compute
  double amplitude = 0.0;  // A > 0, at compute 1
  double exponent = 0.0;   // alpha > 0

  [[nodiscard]] double loss_at(double compute) const;
  // The compute that gives `loss`; nothing for one that is not above the limit.
  [[nodiscard]] std::optional<double> compute_for(double loss) const;
};

struct ScalingResult {
  std::optional<ScalingFit> fit;
  std::string why;  // there is none; empty if there is one
};

inline constexpr std::size_t kFewestBudgets = 3;

// Least squares in the loss over L_inf >= 0, A > 0 and 0.01 <= alpha <= 4. No fit through fewer
// than three different computes, nor where the loss doesn't fall.
[[nodiscard]] ScalingResult fit_scaling(std::span<const ScalingPoint> points);

}  // namespace wavroute
