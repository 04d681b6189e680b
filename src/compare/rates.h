// The learning rates that a comparison tries on its first seed.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "report/comparison.h"

namespace wavroute {

// Whether the cell was trained to its end, or fell on the way: not whether it may go on.
[[nodiscard]] bool has_ended(const Cell& cell);

// Of the cells that `tried` names, the finished one with the lowest loss; the first of equals.
// Nothing where none has a loss.
[[nodiscard]] std::optional<size_t> best_rate(std::span<const Cell> cells,
                                              std::span<const size_t> tried);

// Where a row at a depth has tried rates but no seed besides, the best of these cells stands for
// the row, once all of them have ended; the first where none has a loss.
void promote_rates(std::vector<Cell>& cells);

}  // namespace wavroute
