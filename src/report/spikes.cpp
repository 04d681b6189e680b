#include "report/spikes.h"

#include <algorithm>
#include <cmath>

#include "report/statistics.h"

namespace wavroute {
namespace {

constexpr std::size_t kWindow = 32, kFewest = 8;
constexpr double kDeviations = 4.0;
// Of a loss that stands still, rounding alone is no spike.
constexpr double kLeastDeviation = 1e-6;  // of the mean

// What a loss may be after these.
double limit_after(std::span<const double> recent) {
  const double center = mean(recent);
  const double least = kLeastDeviation * std::abs(center);
  return center + kDeviations * std::max(sample_standard_deviation(recent), least);
}

}  // namespace

std::vector<std::size_t> find_spikes(std::span<const double> losses) {
  std::vector<double> recent;  // at most kWindow
  std::vector<double> above;   // the spike that is going on
  std::vector<std::size_t> spikes;
  const auto remember = [&](double loss) {
    if (recent.size() == kWindow) recent.erase(recent.begin());
    recent.push_back(loss);
  };
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const double loss = losses[i];
    if (std::isfinite(loss) && (recent.size() < kFewest || loss <= limit_after(recent))) {
      above.clear();
      remember(loss);
      continue;
    }
    if (above.empty()) spikes.push_back(i);
    above.push_back(loss);
    if (above.size() <= kWindow) continue;
    for (const double value : above) {
      if (std::isfinite(value)) remember(value);
    }
  }
  return spikes;
}

}  // namespace wavroute
