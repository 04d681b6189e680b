#include "compare/speeds.h"

#include <fmt/format.h>

#include <exception>
#include <set>
#include <utility>

namespace wavroute {

void measure_speeds(Comparison& comparison, const std::vector<Trained>& trained,
                    const CompareOptions& options) {
  std::vector<SpeedJob> jobs;
  std::vector<size_t> of;
  std::set<std::pair<std::string, int64_t>> seen;
  for (size_t i = 0; i < comparison.cells.size(); ++i) {
    const Cell& cell = comparison.cells[i];
    if (cell.role != CellRole::kScheme || cell.status != CellStatus::kFinished ||
        !seen.insert({cell.label, *cell.depth}).second) {
      continue;
    }
    if (!trained[i].vocab_size) {
      options.say(fmt::format("no speed of {} L{}: its summary.json names no vocab_size",
                              cell.label, *cell.depth));
      continue;
    }
    SpeedJob job;
    job.label = fmt::format("{} L{}", cell.label, *cell.depth);
    job.scheme = cell.scheme;
    job.config = options.out / cell.run / "config.toml";
    job.vocab_size = *trained[i].vocab_size;
    job.peak_bytes = trained[i].peak_bytes;
    jobs.push_back(std::move(job));
    of.push_back(i);
  }
  if (jobs.empty()) return;
  options.say(fmt::format("measuring speed: {} models, their steps in turn", jobs.size()));
  std::vector<SpeedResult> results;
  try {
    results = options.measure_speed(jobs);
  } catch (const std::exception& error) {  // the losses stand without it
    options.say(fmt::format("no speed: {}", error.what()));
    return;
  }
  if (options.stop()) return;  // the same signal stopped the workers
  comparison.speed.clear();
  for (size_t j = 0; j < results.size(); ++j) {
    const SpeedResult& result = results[j];
    if (!result.error.empty()) {
      options.say(fmt::format("no speed of {}: {}", jobs[j].label, result.error));
      continue;
    }
    const Cell& cell = comparison.cells[of[j]];
    if (static_cast<double>(result.parameters) != cell.parameters) {
      options.say(fmt::format(
          "no speed of {}: {} parameters were trained, {} were timed", jobs[j].label,
          cell.parameters ? fmt::format("{:.0f}", *cell.parameters) : "?", result.parameters));
      continue;
    }
    Speed speed;
    speed.label = cell.label;
    speed.depth = cell.depth;
    speed.tokens_per_s = result.tokens_per_s;
    speed.ms_p50 = result.ms_p50;
    speed.peak_rss_bytes = static_cast<double>(result.peak_bytes);
    comparison.speed.push_back(std::move(speed));
  }
}

}  // namespace wavroute
