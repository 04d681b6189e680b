// Whether a shallow comparison decides as the deepest one does.
#pragma once

#include <cstddef>
#include <span>

namespace wavroute {

struct DecisionAccuracy {
  std::size_t pairs = 0;  // of schemes
  std::size_t agree = 0;  // those of which the same one has the lower loss

  [[nodiscard]] double share() const {
    return pairs == 0 ? 0.0 : static_cast<double>(agree) / static_cast<double>(pairs);
  }
};

// Losses of the same schemes, in one order, at two depths. Two equal losses at one depth and
// different ones at the other don't agree.
[[nodiscard]] DecisionAccuracy decision_accuracy(std::span<const double> shallow,
                                                 std::span<const double> deepest);

}  // namespace wavroute
