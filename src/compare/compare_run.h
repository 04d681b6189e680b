// Runs a comparison: trains the missing cells of the grid, measures speed, writes table and report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "compare/grid.h"
#include "report/comparison.h"

namespace wavroute {

// A model that was trained, to be stepped beside the others.
struct SpeedJob {
  std::string label;  // in messages
  std::string scheme;
  std::filesystem::path config;  // of its run, resolved
  int64_t vocab_size = 0;
  uint64_t peak_bytes = 0;  // that its training held
};

struct SpeedResult {
  double tokens_per_s = 0.0, ms_p50 = 0.0;
  uint64_t peak_bytes = 0;
  int64_t parameters = 0;
  std::string error;  // why there are no numbers; empty if there are
};

// The steps of all models, taken in turn: a result for each, in order.
using MeasureSpeed = std::function<std::vector<SpeedResult>(const std::vector<SpeedJob>&)>;

struct CompareOptions {
  std::filesystem::path out;
  std::string program;  // the path of wavroute, for the children
  std::function<void()>
      begin;  // called when no cell is refused, before anything is written; or null
  MeasureSpeed measure_speed = nullptr;  // null: no speeds
  int64_t jobs = 1;                      // cells that are trained at a time
  std::function<bool()> stop;  // asked between cells, by any thread: true ends the comparison
  std::function<void(const std::string&)> say;
};

struct CompareOutcome {
  Comparison comparison;
  bool complete = false;  // every cell was tried and the speed measured
};

// Which of the cells are finished in `out`: nothing of them is needed any more. UserError where a
// newer version wrote the comparison or a cell.
[[nodiscard]] std::vector<bool> finished_cells(const std::filesystem::path& out,
                                               const std::vector<GridCell>& cells);

// `out` exists and belongs to this process. Cells that are finished there are kept, others are
// resumed or begun. A cell that fails or diverges is marked, whatever the reason, and the grid goes
// on; one that another process trains is left to it. Before the first cell starts, a UserError for
// a finished one of another configuration or text.
[[nodiscard]] CompareOutcome run_comparison(const Config& config,
                                            const std::vector<GridCell>& cells,
                                            const CompareOptions& options);

// Trains one cell of the grid, as a job of its own beside others: `out` need not belong to this
// process, and of its files only the cell's are written. UserError where the cell's learning rate
// is that of cells which have not ended; otherwise as run_comparison.
[[nodiscard]] Cell train_one_cell(const Config& config, const std::vector<GridCell>& cells,
                                  size_t index, const CompareOptions& options);

// UserError for a link in `out` where the comparison would write: none is followed. Checked before
// anything is written.
void refuse_links(const std::filesystem::path& out, const std::vector<GridCell>& cells);

}  // namespace wavroute
