#include "train/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "wavroute/error.h"

namespace wavroute {

namespace {

// A fraction of the updates, rounded up; 7 % of 100 is 7 although 0.07 * 100 is a little more.
double updates_of(double fraction, double total) { return std::ceil(fraction * total - 1e-9); }

double decay_updates(const ScheduleConfig& schedule, int64_t end) {
  return updates_of(schedule.decay, static_cast<double>(end));
}

}  // namespace

double schedule_factor(const ScheduleConfig& schedule, int64_t step, SchedulePlan plan) {
  const auto first = static_cast<double>(plan.first);
  const double place = static_cast<double>(step) + 1.0;  // updates done, including this one
  const double warmup = updates_of(schedule.warmup, first);
  if (place <= warmup) return place / warmup;
  if (schedule.name == ScheduleKind::kCosine) {
    const double part = place < first ? (place - warmup) / (first - warmup) : 1.0;
    return schedule.final +
           (1.0 - schedule.final) * 0.5 * (1.0 + std::cos(std::numbers::pi * part));
  }
  if (schedule.name == ScheduleKind::kWsd) {
    const double decay = decay_updates(schedule, plan.end);
    const double left = static_cast<double>(plan.end) - place;
    if (decay <= 0.0 || left >= decay) return 1.0;
    return schedule.final + (1.0 - schedule.final) * left / decay;
  }
  return 1.0;
}

double random_walk_reach(double lr, const ScheduleConfig& schedule, int64_t steps,
                         SchedulePlan plan) {
  double squares = 0.0;
  for (int64_t step = 0; step < steps; ++step) {
    const double rate = lr * schedule_factor(schedule, step, plan);
    squares += rate * rate;
  }
  return std::sqrt(squares);
}

ExtendedPlan extend_plan(const ScheduleConfig& schedule, SchedulePlan plan, int64_t step,
                         int64_t steps) {
  const std::string more = fmt::format("{} steps instead of {}: ", steps, plan.end);
  if (schedule.name == ScheduleKind::kCosine) {
    return {{plan.first, steps},
            more + fmt::format("the cosine stays as planned for {} steps, later ones keep a "
                               "learning rate of {} of the peak",
                               plan.first, schedule.final)};
  }
  if (schedule.name == ScheduleKind::kConstant) {
    return {{plan.first, steps}, more + "the learning rate stays at its level"};
  }
  const double decay = decay_updates(schedule, plan.end);
  const auto begin = plan.end - static_cast<int64_t>(decay);
  if (decay > 0.0 && step > begin) {
    throw expected(
        fmt::format("more steps before the decay of wsd begins (step {})", begin),
        fmt::format("{} steps instead of {} at step {}", steps, plan.end, step), {},
        fmt::format("continue from a checkpoint of step {} or earlier (--resume STEP), keep "
                    "train.steps = {}, or give another --out for a new run",
                    begin, plan.end));
  }
  return {{plan.first, steps},
          more + fmt::format("the decay of wsd begins at step {} instead of {}",
                             steps - static_cast<int64_t>(decay_updates(schedule, steps)), begin)};
}

}  // namespace wavroute
