// The cost of a comparison, before any of its cells is trained.
#pragma once

#include <string>
#include <vector>

#include "base/machine.h"
#include "compare/grid.h"
#include "train/forecast.h"

namespace wavroute::app {

// A comparison's cells, ready to be trained, and the forecast of each.
struct ComparePlan {
  Config config;  // of the comparison, resolved
  std::vector<GridCell> cells;
  std::vector<Forecast> forecasts;  // beside cells; empty for those that are finished
  int64_t micro_batch = 1;          // of all cells that name none
  std::string beyond_memory;        // the worst of the plans that don't fit; empty where all do
  std::string hint;                 // how to fix it
};

// Plans `cells`, which are resolved but for micro_batch = 0 and what a variant leaves to the
// machine. Those that name none get `micro_batch`, or where that is 0 too the largest divisor of
// `batch` at which all of their plans fit; a cell with a batch of its own, the largest divisor of
// that up to it. Opens the texts and notes what they are. Throws UserError for a cell whose text
// can't be used, whose options contradict its model, or that asks for what this machine hasn't.
// `finished`: beside cells, or empty. Those need neither memory nor a text; where their text is
// there, it is noted all the same.
[[nodiscard]] ComparePlan plan_comparison(std::vector<GridCell> cells, int64_t batch,
                                          int64_t micro_batch, const Machine& machine,
                                          const std::vector<bool>& finished);

// Each label and depth with the lines of `wavroute train --dry-run`, and the time of all cells.
[[nodiscard]] std::string plan_text(const ComparePlan& plan);

}  // namespace wavroute::app
