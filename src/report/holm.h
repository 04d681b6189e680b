// Several tests at once: p-values that hold for all of them together.
#pragma once

#include <span>
#include <vector>

namespace wavroute {

// Holm's step-down adjustment (1979): of m p-values, the i-th smallest becomes the largest of
// (m - k + 1) p_(k) over k <= i, at most 1. Where those below 0.05 are called differences, the
// probability that any of these is none is at most 5 %. In the order given.
[[nodiscard]] std::vector<double> holm_adjusted(std::span<const double> p_values);

}  // namespace wavroute
