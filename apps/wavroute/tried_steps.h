// How long a training takes, from a few steps that are taken for real.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/forecast.h"

namespace wavroute::app {

// A training of which nothing is known but its plan.
struct PlannedTraining {
  Config config;  // resolved
  Forecast forecast;
  int64_t vocab_size = 0;
  int64_t valid_tokens = 0;  // of the validation text
};

struct ExpectedTime {
  double seconds = 0.0;  // of the start of a process, all steps and evaluations
  std::string line;      // "expected time ...", with a newline
};

// For each training: three steps of its model are timed, in a process of its own and in turn with
// the others, on as many of its rows as have some thousand tokens. A step that would take too long
// is not tried, but estimated from a matrix product; the line says so.
[[nodiscard]] std::vector<ExpectedTime> expected_times(
    const std::vector<PlannedTraining>& trainings);

}  // namespace wavroute::app
