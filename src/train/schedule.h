// Learning rate over the steps of a run.
#pragma once

#include <cstdint>
#include <string>

#include "wavroute/config.h"

namespace wavroute {

// The step counts that the fractions of a schedule refer to. They differ once a run got more steps.
struct SchedulePlan {
  int64_t first = 0;  // steps planned at first: warm-up and cosine
  int64_t end = 0;    // steps of the run: where wsd's decay ends
};

// The factor on the peak learning rate for update `step` (from 0): a linear warm-up that reaches 1
// with its last update, then
//   cosine    half a cosine from 1 to `final` at plan.first, and `final` after it
//   wsd       1, and a linear decay to `final` over the last `decay` of plan.end
//   constant  1
[[nodiscard]] double schedule_factor(const ScheduleConfig& schedule, int64_t step,
                                     SchedulePlan plan);

// How far a coefficient goes in `steps` updates by chance alone: under Adam each moves it by about
// the learning rate, up or down, so that the distance is the root of the sum of their squares.
[[nodiscard]] double random_walk_reach(double lr, const ScheduleConfig& schedule, int64_t steps,
                                       SchedulePlan plan);

// The plan of a run that is at `step` updates and gets `steps` in all, and a sentence about it for
// the user. The factors of updates up to `step` don't change; UserError if wsd's decay has begun.
struct ExtendedPlan {
  SchedulePlan plan;
  std::string words;
};
[[nodiscard]] ExtendedPlan extend_plan(const ScheduleConfig& schedule, SchedulePlan plan,
                                       int64_t step, int64_t steps);

}  // namespace wavroute
