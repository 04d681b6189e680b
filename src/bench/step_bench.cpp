#include "bench/step_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "base/numbers.h"
#include "bench/busy.h"
#include "bench/worker.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr double kMemoryShare = 0.9;  // of the available memory; the parent needs some too

double number(const nlohmann::json& answer, const char* key) {
  const auto value = answer.find(key);
  if (value == answer.end() || !value->is_number()) {
    throw Failure(expectation(fmt::format("a number '{}'", key), answer.dump(), "by a worker"));
  }
  return value->get<double>();
}

std::string text(const nlohmann::json& answer, const char* key) {
  const auto value = answer.find(key);
  return value != answer.end() && value->is_string() ? value->get<std::string>() : "";
}

// The median over the rounds of above[round] / below[round]: if the machine gets slower for a
// minute, both do.
double median_ratio(const std::vector<double>& above, const std::vector<double>& below) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(above.size(), below.size()); ++i) {
    ratios.push_back(above[i] / below[i]);
  }
  return quantile(ratios, 0.5);
}

// One job: its child while that lives, and its results so far.
struct Entry {
  const StepJob* job = nullptr;
  StepResult result;
  std::unique_ptr<Worker> worker;
  bool stepped = false;  // the first step has been taken, here or in an earlier group
  bool counted = false;  // all rounds have been taken
  bool lost = false;     // died after that: its numbers are kept, but it can't be the reference
  bool has_gemm = false;
  double gflops = 0;             // the best seen
  uint64_t bytes = 0;            // the estimate, then what the first step took
  std::vector<double> group_ms;  // of the current group
  std::vector<double> all_ms;    // of every group
  std::vector<double> busy_ms;   // of every group, beside busy processes
};

class Measurement {
 public:
  Measurement(std::span<const StepJob> jobs, const StepPlan& plan, const StepProgress& progress)
      : plan_(plan), progress_(progress), limit_(plan.memory_limit), busy_(plan.busy) {
    if (limit_ == 0) {
      limit_ = static_cast<uint64_t>(kMemoryShare *
                                     static_cast<double>(probe_machine().memory_available));
    }
    for (const auto& job : jobs) {
      Entry entry;
      entry.job = &job;
      entry.bytes = job.estimate_bytes;
      entry.result.label = job.label;
      entry.result.provider = job.provider;
      entry.result.scheme = job.scheme;
      entries_.push_back(std::move(entry));
    }
  }

  std::vector<StepResult> run() {
    for (auto group = next_group(); !group.empty(); group = next_group()) run_group(group);
    std::vector<StepResult> results;
    for (auto& entry : entries_) {
      if (entry.worker) entry.worker->quit();
      finish(entry);
      results.push_back(std::move(entry.result));
    }
    return results;
  }

 private:
  void say(const std::string& what) const {
    if (progress_) progress_(what);
  }

  // Runs `action`; a failure of the child ends this entry, not the measurement.
  template <typename Action>
  bool guarded(Entry& entry, Action action) {
    try {
      action();
      return true;
    } catch (const Failure& failure) {
      entry.worker.reset();
      entry.lost = entry.counted;
      if (!entry.counted) {
        entry.result.error = failure.what();
        entry.result.hint = failure.hint();
      }
      say(failure.what());
      return false;
    }
  }

  Entry* reference() {
    return entries_[0].result.ok() && !entries_[0].lost ? &entries_[0] : nullptr;
  }

  // The next entries to be stepped in turn: the first job, and as many of those still to be
  // counted as are expected to fit beside it. At least one of them, however large: without the
  // first job, if it does not fit beside it.
  std::vector<Entry*> next_group() {
    std::vector<Entry*> waiting;
    for (auto& entry : entries_) {
      if (entry.result.ok() && !entry.counted) waiting.push_back(&entry);
    }
    if (waiting.empty()) return {};
    std::vector<Entry*> group;
    uint64_t used = 0;
    if (Entry* first = reference();
        first != nullptr && first != waiting[0] && first->bytes + waiting[0]->bytes <= limit_) {
      group.push_back(first);
      used = first->bytes;
    }
    const size_t before = group.size();
    for (Entry* entry : waiting) {
      if (group.size() > before && used + entry->bytes > limit_) continue;
      group.push_back(entry);
      used += entry->bytes;
    }
    return group;
  }

  // Starts the child, takes its first step, and measures its memory.
  void start(Entry& entry) {
    const auto& job = *entry.job;
    entry.worker = std::make_unique<Worker>(WorkerCommand{job.label, job.argv, job.env, job.unset});
    const auto ready = entry.worker->receive(plan_.start_timeout, "the line that says ready");
    auto& result = entry.result;
    result.precision = text(ready, "precision");
    result.layers = static_cast<int64_t>(number(ready, "layers"));
    result.width = static_cast<int64_t>(number(ready, "width"));
    result.batch = static_cast<int64_t>(number(ready, "batch"));
    result.context = static_cast<int64_t>(number(ready, "context"));
    result.parameters = static_cast<int64_t>(number(ready, "parameters"));
    const auto flops = ready.find("flops_per_step");
    if (flops != ready.end() && flops->is_number()) result.flops_per_step = flops->get<double>();
    const auto gemm = ready.find("gemm");
    entry.has_gemm =
        text(ready, "provider") == "wavroute" || (gemm != ready.end() && *gemm == true);
    const double ms = step(entry, plan_.first_step_timeout);
    if (!entry.stepped) result.first_ms = ms;
    entry.stepped = true;
    entry.bytes = std::max<uint64_t>(1, learn_memory(entry));
    if (entry.has_gemm) learn_peak(entry);
    say(fmt::format("{}: first step {:.0f} ms, {:.2f} GB", job.label, ms,
                    static_cast<double>(entry.bytes) / 1e9));
  }

  double step(Entry& entry, std::chrono::milliseconds timeout) {
    const auto answer = entry.worker->ask("step", timeout, "the time of a training step");
    entry.result.loss = number(answer, "loss");
    return number(answer, "ms");
  }

  uint64_t learn_memory(Entry& entry) {
    const auto answer = entry.worker->ask("memory", plan_.step_timeout, "its peak memory");
    const auto bytes = static_cast<uint64_t>(number(answer, "peak_rss_bytes"));
    entry.result.peak_rss_bytes = std::max(entry.result.peak_rss_bytes, bytes);
    return bytes;
  }

  void learn_peak(Entry& entry) {
    const auto answer = entry.worker->ask("gemm", plan_.step_timeout, "a matrix product's speed");
    entry.gflops = std::max(entry.gflops, number(answer, "gflops"));
  }

  // Starts those of the group that do not run yet. One that turns out too large to fit beside the
  // others is ended and left, with its measured size, for a later group. That size makes the later
  // group smaller, and the first new one always stays, so this terminates.
  std::vector<Entry*> start_group(const std::vector<Entry*>& group) {
    std::vector<Entry*> running;
    uint64_t used = 0;
    for (Entry* entry : group) {
      if (!entry->worker && !guarded(*entry, [&] { start(*entry); })) continue;
      const bool needed = running.empty() || (running.size() == 1 && running[0]->counted);
      if (used + entry->bytes > limit_ && !running.empty()) {
        say(fmt::format("{} does not fit in memory beside the others", entry->job->label));
        if (!needed) {
          entry->worker.reset();
          continue;
        }
        // It doesn't fit beside the first job alone: from here on it runs without it.
        running[0]->worker.reset();
        running.clear();
        used = 0;
      }
      used += entry->bytes;
      running.push_back(entry);
    }
    return running;
  }

  // One step of each remaining member of the group, in turn.
  template <typename Take>
  void step_each(const std::vector<Entry*>& group, Take take) {
    for (Entry* entry : group) {
      if (!entry->worker) continue;
      guarded(*entry, [&] { take(*entry, step(*entry, plan_.step_timeout)); });
    }
  }

  void run_group(const std::vector<Entry*>& planned) {
    for (auto& entry : entries_) {  // the first job keeps its child from group to group
      if (std::ranges::find(planned, &entry) == planned.end()) entry.worker.reset();
      entry.group_ms.clear();
    }
    const auto group = start_group(planned);
    for (int round = 1; round < plan_.warmup + plan_.rounds; ++round) {
      const bool counts = round >= plan_.warmup;
      step_each(group, [&](Entry& entry, double ms) {
        if (counts) entry.group_ms.push_back(ms);
      });
      if (counts && plan_.busy > 0) {
        busy_.resume();
        step_each(group, [](Entry& entry, double ms) { entry.busy_ms.push_back(ms); });
        busy_.pause();
      }
      if (counts) say(fmt::format("round {} of {}", round - plan_.warmup + 1, plan_.rounds));
    }
    for (Entry* entry : group) close(*entry, group[0]);
  }

  // Ends a member of the group and collects its times. The first job stays for the next group.
  void close(Entry& entry, const Entry* first_of_group) {
    if (!entry.worker) return;
    const bool alive = guarded(entry, [&] {
      learn_memory(entry);
      if (entry.has_gemm) learn_peak(entry);
    });
    if (!alive) return;
    entry.all_ms.insert(entry.all_ms.end(), entry.group_ms.begin(), entry.group_ms.end());
    entry.counted = true;
    if (first_of_group == &entries_[0] && entries_[0].worker) {
      entry.result.ratio_to_first = median_ratio(entries_[0].group_ms, entry.group_ms);
    }
    if (&entry == &entries_[0]) return;
    entry.worker->quit();
    entry.worker.reset();
  }

  void finish(Entry& entry) {
    auto& result = entry.result;
    if (!result.ok()) return;
    result.ms_p20 = quantile(entry.all_ms, 0.2);
    result.ms_p50 = quantile(entry.all_ms, 0.5);
    result.ms_p80 = quantile(entry.all_ms, 0.8);
    if (plan_.busy > 0) {
      result.busy = plan_.busy;
      result.busy_ms_p20 = quantile(entry.busy_ms, 0.2);
      result.busy_ms_p50 = quantile(entry.busy_ms, 0.5);
      result.busy_ms_p80 = quantile(entry.busy_ms, 0.8);
      result.busy_ratio = median_ratio(entry.busy_ms, entry.all_ms);
    }
    result.tokens_per_s = static_cast<double>(result.batch * result.context) / result.ms_p50 * 1e3;
    double peak = 0;  // in 1e9 floating-point operations per second
    for (const auto& other : entries_) {
      if (other.result.precision == result.precision) peak = std::max(peak, other.gflops);
    }
    if (result.flops_per_step && peak > 0) {
      result.percent_of_peak = 100 * *result.flops_per_step / (result.ms_p50 / 1e3) / (peak * 1e9);
    }
  }

  const StepPlan plan_;
  const StepProgress& progress_;
  uint64_t limit_;
  BusyProcesses busy_;
  std::vector<Entry> entries_;
};

}  // namespace

std::vector<StepResult> measure_steps(std::span<const StepJob> jobs, const StepPlan& plan,
                                      const StepProgress& progress) {
  if (plan.warmup < 1 || plan.rounds < 1) {
    throw expected("at least 1 round of warm-up and 1 that counts",
                   fmt::format("{} and {}", plan.warmup, plan.rounds));
  }
  return Measurement(jobs, plan, progress).run();
}

}  // namespace wavroute
