// The cost of a comparison, before any of its cells is trained.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/machine.h"
#include "compare/grid.h"
#include "train/forecast.h"
#include "tried_steps.h"

namespace wavroute::app {

// What a plan needs to know of a comparison.
struct PlanRequest {
  Config config;  // resolved for the machine
  // The grid's cells, with rows of wider baselines.
  std::function<std::vector<GridCell>(std::span<const WiderBaseline>)> expand;
  // The parameters of the model that a finished cell was trained with; -1: it isn't finished.
  std::function<int64_t(const GridCell&)> trained_parameters;
  int64_t micro_batch = 0;  // of all cells that name none; 0: the largest that all plans fit
};

// A comparison's cells, ready to be trained, and the forecast of each.
struct ComparePlan {
  Config config;  // of the comparison, resolved
  std::vector<GridCell> cells;
  std::vector<PlannedTraining> trainings;  // beside cells; without a forecast where it is finished
  std::vector<bool> finished;              // beside cells
  int64_t micro_batch = 1;                 // of all cells that name none
  int64_t jobs = 1;                        // cells at a time
  std::string beyond_memory;  // the worst of the plans that don't fit; empty where all do
  std::string hint;           // how to fix it
};

// Plans the cells of a grid. Those that name no micro_batch get the request's, or where that is 0
// too the largest divisor of the batch at which all of their plans fit; a cell with a batch of its
// own, the largest divisor of that up to it. Cells too small for all threads are trained side by
// side (compare.jobs), each with its share of the threads. Opens the texts and notes what they are.
// Throws UserError for a cell whose text can't be used, whose options contradict its model, or that
// asks for what this machine hasn't. Finished cells need neither memory nor a text; where their
// text is there, it is noted all the same.
[[nodiscard]] ComparePlan plan_comparison(const PlanRequest& request, const Machine& machine);

// Each label and depth with the lines of `wavroute train --dry-run`, and the time of all cells.
[[nodiscard]] std::string plan_text(const ComparePlan& plan);

// The cells as --list-cells prints them: for people, or a JSON list.
[[nodiscard]] std::string list_text(const ComparePlan& plan, bool json);

}  // namespace wavroute::app
