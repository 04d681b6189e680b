#include "report/loss_curve.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>

namespace wavroute {

std::vector<CurvePoint> mean_curve(std::span<const std::vector<CurvePoint>> curves) {
  std::map<double, std::pair<double, std::size_t>> at;  // tokens -> sum of losses, runs
  for (const std::vector<CurvePoint>& curve : curves) {
    for (const CurvePoint& point : curve) {
      auto& [sum, runs] = at[point.tokens];
      sum += point.loss;
      ++runs;
    }
  }
  std::vector<CurvePoint> result;
  for (const auto& [tokens, entry] : at) {
    if (entry.second != curves.size()) continue;
    result.push_back({tokens, entry.first / static_cast<double>(entry.second)});
  }
  return result;
}

std::optional<double> tokens_to_target(std::span<const CurvePoint> curve, double target) {
  for (std::size_t i = 0; i < curve.size(); ++i) {
    if (!(curve[i].loss <= target)) continue;
    if (i == 0) return curve[i].tokens;
    const CurvePoint &before = curve[i - 1], &after = curve[i];
    const double share = (before.loss - target) / (before.loss - after.loss);
    return before.tokens + share * (after.tokens - before.tokens);
  }
  return std::nullopt;
}

std::optional<double> mean_of_last(std::span<const CurvePoint> curve, std::size_t count) {
  const auto last = curve.last(std::min(count, curve.size()));
  if (last.empty()) return std::nullopt;
  double sum = 0.0;
  for (const CurvePoint& point : last) sum += point.loss;
  return sum / static_cast<double>(last.size());
}

}  // namespace wavroute
