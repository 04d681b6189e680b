// The cells of a comparison: schemes and variants x depths x seeds. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "wavroute/config.h"

namespace wavroute {

// One model to train.
struct GridCell {
  std::string label;   // the scheme, or the variant's label
  std::string folder;  // "wav-L12-s1", a name that is safe in a path
  Config config;       // ready for wavroute train
};

// In the order of a table: depths, then schemes and variants as listed, then seeds. Throws
// UserError for an empty grid, two equal labels, and overrides that don't hold.
[[nodiscard]] std::vector<GridCell> expand_grid(const Config& config, const SchemeCatalog& catalog);

}  // namespace wavroute
