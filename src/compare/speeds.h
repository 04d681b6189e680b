// The speeds of a comparison's models, from steps that are taken in turn.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compare/compare_run.h"

namespace wavroute {

// What is known of a trained cell besides what a comparison keeps.
struct Trained {
  std::optional<int64_t> vocab_size;
  uint64_t peak_bytes = 0;
  std::string corpus;  // its text, described
};

// Replaces comparison.speed: one job for each label and depth, with the seed of its first finished
// cell. `trained`: beside the cells. Where nothing can be measured, says why and leaves it.
void measure_speeds(Comparison& comparison, const std::vector<Trained>& trained,
                    const CompareOptions& options);

}  // namespace wavroute
