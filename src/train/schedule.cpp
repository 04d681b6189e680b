#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace wavroute {

namespace {

// A fraction of the updates, rounded up; 7 % of 100 is 7 although 0.07 * 100 is a little more.
double updates_of(double fraction, double total) { return std::ceil(fraction * total - 1e-9); }

}  // namespace

double schedule_factor(const ScheduleConfig& schedule, int64_t step, int64_t steps) {
  const auto total = static_cast<double>(steps);
  const double place = static_cast<double>(step) + 1.0;  // updates done with this one
  const double warmup = updates_of(schedule.warmup, total);
  if (place <= warmup) return place / warmup;
  if (schedule.name == "cosine") {
    const double part = (place - warmup) / (total - warmup);
    return schedule.final +
           (1.0 - schedule.final) * 0.5 * (1.0 + std::cos(std::numbers::pi * part));
  }
  if (schedule.name == "wsd") {
    const double decay = updates_of(schedule.decay, total);
    const double left = total - place;
    if (decay <= 0.0 || left >= decay) return 1.0;
    return schedule.final + (1.0 - schedule.final) * left / decay;
  }
  return 1.0;
}

}  // namespace wavroute
