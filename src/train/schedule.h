// Learning rate over the steps of a run.
#pragma once

#include <cstdint>

#include "wavroute/config.h"

namespace wavroute {

// The factor on the peak learning rate for update `step` (from 0) of `steps`: a linear warm-up that
// reaches 1 with its last update, then
//   cosine    half a cosine from 1 to `final`
//   wsd       1, and a linear decay to `final` over the last `decay` of the steps
//   constant  1
[[nodiscard]] double schedule_factor(const ScheduleConfig& schedule, int64_t step, int64_t steps);

}  // namespace wavroute
