#include "report/spikes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "report/statistics.h"

namespace wavroute {
namespace {

constexpr std::size_t kWindow = 32, kFewest = 8;
constexpr double kDeviations = 4.0;
// Of a loss that stands still, rounding alone is no spike.
constexpr double kLeastDeviation = 1e-6;  // of the mean

}  // namespace

int64_t count_spikes(std::span<const double> losses) {
  std::vector<double> recent;  // at most kWindow
  std::vector<double> above;   // the spike that is going on
  int64_t spikes = 0;
  const auto remember = [&](double loss) {
    if (recent.size() == kWindow) recent.erase(recent.begin());
    recent.push_back(loss);
  };
  for (const double loss : losses) {
    bool is_spike = !std::isfinite(loss);
    if (!is_spike && recent.size() >= kFewest) {
      const double center = mean(recent);
      const double deviation =
          std::max(sample_standard_deviation(recent), kLeastDeviation * std::abs(center));
      is_spike = loss > center + kDeviations * deviation;
    }
    if (!is_spike) {
      above.clear();
      remember(loss);
      continue;
    }
    if (above.empty()) ++spikes;
    above.push_back(loss);
    if (above.size() > kWindow) {
      for (const double value : above) {
        if (std::isfinite(value)) remember(value);
      }
    }
  }
  return spikes;
}

}  // namespace wavroute
