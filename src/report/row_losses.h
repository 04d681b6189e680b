// The losses and curves of a row's samples, by seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "report/table.h"

namespace wavroute {

using Losses = std::map<int64_t, double>;
using Curves = std::map<int64_t, std::vector<CurvePoint>>;

// A cell without a seed counts on its own: its key is negative, which no seed is.
[[nodiscard]] inline int64_t seed_key(const Cell& cell, std::size_t index) {
  return cell.seed.value_or(-1 - static_cast<int64_t>(index));
}

// The finite losses of the samples that finished.
[[nodiscard]] Losses losses_of(const Comparison& comparison, const Table& table, std::size_t row);
// The validation curves of the same samples.
[[nodiscard]] Curves curves_of(const Comparison& comparison, const Table& table, std::size_t row);

// Fills what table.h lists under "what the difference is worth", rates and decisions: of a table
// that has its losses, differences and speeds.
void fill_worth(Table& table, const Comparison& comparison);

}  // namespace wavroute
