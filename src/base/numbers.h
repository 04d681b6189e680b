// Numbers as people read them, and the quantiles of a few. Torch-free.
#pragma once

#include <string>
#include <vector>

namespace wavroute {

// "12,345", rounded, with a real minus sign.
[[nodiscard]] std::string format_count(double value);
// "1.25 GiB"
[[nodiscard]] std::string format_bytes(double bytes);
// "10.5M"
[[nodiscard]] std::string format_magnitude(double value);
// "1:02:03", "02:03"
[[nodiscard]] std::string format_duration(double seconds);

// The quantile in [0, 1] of unsorted values, linear between neighbours (as numpy's default).
// Throws Failure for no values.
[[nodiscard]] double quantile(std::vector<double> values, double fraction);

}  // namespace wavroute
