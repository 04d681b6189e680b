#include "tried_steps.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <system_error>
#include <tuple>

#include "base/machine.h"
#include "base/numbers.h"
#include "bench/step_bench.h"
#include "common.h"
#include "config/print.h"
#include "io/file.h"
#include "model/device.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

constexpr int kRounds = 3;
constexpr int64_t kTokens = 2048;    // of a step that is tried: more take as long per token
constexpr double kMostFlops = 2e12;  // of one: about ten seconds on two cores
constexpr double kEvaluationCost = 1.0 / 3.0;  // of a token, in tokens that are trained on

// A folder for files that children read, gone with this object.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "wavroute-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw_system_error("make a folder like", name, errno);
    path_ = name;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

double tokens_per_step(const Config& config) {
  return static_cast<double>(config.train.batch * config.model.context);
}

int64_t rows_to_try(const PlannedTraining& training) {
  const int64_t most = std::max<int64_t>(1, kTokens / training.config.model.context);
  return std::min({training.forecast.micro_batch, training.config.train.batch, most});
}

bool is_worth_trying(const PlannedTraining& training) {
  const auto tokens = static_cast<double>(rows_to_try(training) * training.config.model.context);
  return training.forecast.flops_per_token * tokens <= kMostFlops;
}

// After which steps a run evaluates; the trainer does so before it saves as well.
int64_t evaluations_of(const TrainConfig& train) {
  if (train.eval_every == 0) return 1;
  std::set<int64_t> every = {train.eval_every};
  if (train.save_every > 0) every.insert(train.save_every);
  int64_t count = 0;
  for (const int64_t steps : every) count += train.steps / steps;
  if (every.size() == 2) {
    count -= train.steps / std::lcm(train.eval_every, train.save_every);
  }
  const bool is_at_the_end =
      std::ranges::any_of(every, [&](int64_t steps) { return train.steps % steps == 0; });
  return is_at_the_end ? count : count + 1;
}

// The speed of a matrix product of each shape, measured once: a forecast compares schemes, not
// moments in time.
class ProductPeaks {
 public:
  double of(const Config& config, int64_t micro_batch) {
    const ModelConfig& m = config.model;
    const int64_t tokens = micro_batch * m.context;
    const auto key =
        std::tuple(*config.train.precision, config.train.threads, m.width, m.hidden, tokens);
    const auto known = peaks_.find(key);
    if (known != peaks_.end()) return known->second;
    at::set_num_threads(static_cast<int>(config.train.threads));
    return peaks_[key] =
               measure_product_peak(*config.train.precision, m, tokens, device_of(config));
  }

 private:
  std::map<std::tuple<Precision, int64_t, int64_t, int64_t, int64_t>, double> peaks_;
};

struct Tried {
  std::vector<StepResult> steps;  // beside the trainings; those that are not worth it have an error
  double start_seconds = 0.0;     // of a process until its model is there, on average
};

Tried try_steps(const std::vector<PlannedTraining>& trainings) {
  const Scratch scratch;
  std::vector<StepJob> jobs;
  std::vector<size_t> of;
  for (size_t i = 0; i < trainings.size(); ++i) {
    const PlannedTraining& training = trainings[i];
    if (!is_worth_trying(training)) continue;
    Config config = training.config;
    config.train.batch = config.train.micro_batch = rows_to_try(training);
    config.compare = {};
    const fs::path file = scratch.path() / fmt::format("{}.toml", i);
    write_file_atomic(file, to_toml(config));
    StepJob& job = jobs.emplace_back();
    job.label = config.residual.scheme;
    job.provider = "wavroute";
    job.scheme = config.residual.scheme;
    job.argv = {own_path(),    "bench",   "worker",
                file.string(), "--vocab", std::to_string(training.vocab_size)};
    job.estimate_bytes = static_cast<uint64_t>(training.forecast.memory.total());
    of.push_back(i);
  }
  StepPlan plan;
  plan.warmup = 1;
  plan.rounds = kRounds;
  Tried tried;
  tried.steps.resize(trainings.size());
  for (StepResult& result : tried.steps) result.error = "a step is too long to be tried";
  if (jobs.empty()) return tried;
  plan.memory_limit = usable_memory(trainings[of.front()].config, probe_machine());
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<StepResult> measured = measure_steps(jobs, plan);
  std::chrono::duration<double> starts = std::chrono::steady_clock::now() - begin;
  for (size_t j = 0; j < measured.size(); ++j) {
    starts -= std::chrono::duration<double, std::milli>(measured[j].first_ms +
                                                        kRounds * measured[j].ms_p50);
    tried.steps[of[j]] = measured[j];
  }
  tried.start_seconds = std::max(0.0, starts.count() / static_cast<double>(measured.size()));
  return tried;
}

}  // namespace

std::vector<ExpectedTime> expected_times(const std::vector<PlannedTraining>& trainings) {
  const Tried tried = try_steps(trainings);
  ProductPeaks peaks;
  std::vector<ExpectedTime> times;
  for (size_t i = 0; i < trainings.size(); ++i) {
    const PlannedTraining& training = trainings[i];
    const Config& config = training.config;
    const StepResult& result = tried.steps[i];
    double step = 0.0;
    std::string how;
    if (result.ok()) {
      const auto share =
          static_cast<double>(config.train.batch) / static_cast<double>(rows_to_try(training));
      step = result.ms_p50 / 1e3 * share;
      how = fmt::format("{} steps were tried", kRounds);
    } else {
      step = expected_step_seconds(training.forecast, config,
                                   peaks.of(config, training.forecast.micro_batch));
      how = fmt::format("from a matrix product: {}", result.error);
    }
    const int64_t evaluations = evaluations_of(config.train);
    const auto scored =
        static_cast<double>(std::min(config.data.eval_tokens, training.valid_tokens));
    const double evaluation = step * scored / tokens_per_step(config) * kEvaluationCost;
    ExpectedTime& time = times.emplace_back();
    time.seconds = tried.start_seconds + step * static_cast<double>(config.train.steps) +
                   evaluation * static_cast<double>(evaluations);
    time.line = fmt::format(
        "expected time    {} for {} steps of {} tokens at {:.1f} ms, {} evaluation{} ({})\n",
        format_duration(time.seconds), config.train.steps, format_count(tokens_per_step(config)),
        1e3 * step, format_count(static_cast<double>(evaluations)), evaluations == 1 ? "" : "s",
        how);
  }
  return times;
}

}  // namespace wavroute::app
