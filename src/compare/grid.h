// The cells of a comparison: schemes and variants x depths x seeds. Torch-free.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "wavroute/config.h"

namespace wavroute {

// One model to train.
struct GridCell {
  std::string label;   // the scheme, or the variant's label
  std::string folder;  // "wav-L12-s1", a name that is safe in a path
  Config config;       // ready for wavroute train
  std::string text;    // sha256 of both splits of its text; empty until they are read
};

// In the order of a table: depths, then schemes and variants as listed, then seeds. Throws
// UserError for an empty grid, two labels with one folder, invalid overrides, and whatever else
// `wavroute train` would refuse of a cell's configuration.
[[nodiscard]] std::vector<GridCell> expand_grid(const Config& config, const SchemeCatalog& catalog);

// An option of [residual] that the command line sets applies to the schemes that have it: UserError
// where no cell's has. `sets`: each as --set takes it.
void check_overrides(std::span<const std::string> sets, const std::vector<GridCell>& cells,
                     const SchemeCatalog& catalog);

}  // namespace wavroute
