// Whether what lies in a comparison's folder is the comparison's.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "compare/grid.h"
#include "report/comparison.h"

namespace wavroute {

// Where a cell's files lie in the folder `out` of its comparison.
struct CellPaths {
  std::filesystem::path config, log, folder;

  CellPaths(const std::filesystem::path& out, const GridCell& cell);
};

// UserError where the cell was trained with another configuration than `cell.config`.
void refuse_other_configuration(const CellPaths& paths, const GridCell& cell);

// UserError where the run in the cell's folder, of these settings, is another than the cell is to
// be: somebody may have given it more steps.
void refuse_other_run(const CellPaths& paths, const GridCell& cell, const RunSettings& settings);

// UserError where a run's text is another than the cell's: losses are paired only if they come from
// the same text.
void refuse_other_text(const GridCell& cell, const Measure& measure);

// Waits some seconds for whoever holds the folder: a train process of a comparison that was killed
// ends its step and saves before it goes. Whether it is free.
[[nodiscard]] bool wait_until_free(const std::filesystem::path& folder,
                                   const std::function<bool()>& stop);

}  // namespace wavroute
