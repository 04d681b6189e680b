#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace wavroute {

double schedule_factor(const ScheduleConfig& schedule, int64_t step, int64_t steps) {
  const auto total = static_cast<double>(steps);
  const double place = static_cast<double>(step) + 1.0;  // updates done with this one
  const double warmup = std::ceil(schedule.warmup * total);
  if (place < warmup) return place / warmup;
  if (schedule.name == "cosine") {
    const double part = warmup < total ? (place - warmup) / (total - warmup) : 1.0;
    return schedule.final +
           (1.0 - schedule.final) * 0.5 * (1.0 + std::cos(std::numbers::pi * part));
  }
  if (schedule.name == "wsd") {
    const double decay = std::ceil(schedule.decay * total);
    const double left = total - place;
    if (decay <= 0.0 || left >= decay) return 1.0;
    return schedule.final + (1.0 - schedule.final) * left / decay;
  }
  return 1.0;
}

}  // namespace wavroute
