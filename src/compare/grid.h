// The cells of a comparison: schemes and variants x depths x seeds. Torch-free.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/comparison.h"
#include "wavroute/config.h"

namespace wavroute {

// One model to train.
struct GridCell {
  std::string label;   // the scheme, or the variant's label
  std::string folder;  // "wav-L12-s1", a name that is safe in a path
  Config config;       // ready for wavroute train
  std::string text;    // sha256 of both splits of its text; empty until they are read

  CellRole role = CellRole::kScheme;
  std::optional<double> budget = std::nullopt;  // of kBudget: its steps over the others'
  std::vector<std::string> wider_for = {};      // of a wider baseline: labels of its size
  // The cells among whose learning rates the best becomes this one's; empty: it has its own.
  std::vector<size_t> needs = {};
};

// A row beside the grid: its baseline, the first row, with a wider MLP.
struct WiderBaseline {
  int64_t depth = 0;
  int64_t hidden = 0;               // of the MLP
  std::vector<std::string> labels;  // the rows whose parameters it matches
};

// In the order of a table: depths, then schemes, variants and wider baselines as listed, then
// seeds; the budgets of the first row come last. With compare.lrs the first seed of each row is a
// cell for each rate, and the other seeds take the best of them. Throws UserError for an empty
// grid, two labels with one folder, invalid overrides, and whatever else `wavroute train` would
// refuse of a cell's configuration.
[[nodiscard]] std::vector<GridCell> expand_grid(const Config& config, const SchemeCatalog& catalog,
                                                std::span<const WiderBaseline> wider = {});

// The wider baselines that a grid needs: one for each depth and size that a row of the same [model]
// exceeds by more than 1 %. `parameters`: beside cells, of each model.
[[nodiscard]] std::vector<WiderBaseline> wider_baselines(const std::vector<GridCell>& cells,
                                                         std::span<const int64_t> parameters);

// An option of [residual] that the command line sets applies to the schemes that have it: UserError
// where no cell's has. `sets`: each as --set takes it.
void check_overrides(std::span<const std::string> sets, const std::vector<GridCell>& cells,
                     const SchemeCatalog& catalog);

}  // namespace wavroute
