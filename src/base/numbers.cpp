#include "base/numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "wavroute/error.h"

namespace wavroute {

std::string format_count(double value) {
  const std::string digits = fmt::format("{:.0f}", std::round(std::abs(value)));
  std::string result = std::round(value) < 0.0 ? "−" : "";
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) result += ',';
    result += digits[i];
  }
  return result;
}

std::string format_bytes(double bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024.0 && unit + 1 < std::size(kUnits)) bytes /= 1024.0, ++unit;
  const int digits = unit < 2 || bytes >= 100.0 ? 0 : unit == 2 ? 1 : 2;
  return fmt::format("{:.{}f} {}", bytes, digits, kUnits[unit]);
}

std::string format_magnitude(double value) {
  constexpr std::string_view kSuffixes[] = {"", "K", "M", "G", "T", "P"};
  std::size_t suffix = 0;
  while (std::abs(value) >= 999.5 && suffix + 1 < std::size(kSuffixes)) value /= 1000.0, ++suffix;
  if (suffix == 0) return fmt::format("{:.0f}", value);
  const double size = std::abs(value);
  return fmt::format("{:.{}f}{}", value,
                     size < 9.995   ? 2
                     : size < 99.95 ? 1
                                    : 0,
                     kSuffixes[suffix]);
}

std::string format_duration(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  if (total >= 3600) {
    return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
  }
  return fmt::format("{:02}:{:02}", total / 60, total % 60);
}

double quantile(std::vector<double> values, double fraction) {
  if (values.empty())
    throw Failure(expectation("at least one value to take a quantile of", "none"));
  std::ranges::sort(values);
  const double position = std::clamp(fraction, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const auto above = std::min(below + 1, values.size() - 1);
  return values[below] + (position - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace wavroute
