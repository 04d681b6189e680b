// `wavroute bench step`: training steps of several schemes and of PyTorch, timed in turn.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/build_info.h"
#include "base/machine.h"
#include "base/output.h"
#include "base/utc.h"
#include "bench/pytorch.h"
#include "bench/step_bench.h"
#include "bench/step_table.h"
#include "bench_op.h"
#include "bench_worker.h"
#include "command.h"
#include "common.h"
#include "config/load.h"
#include "train/forecast.h"
#include "train/session.h"
#include "validators.h"
#include "waiting.h"
#include "wavroute/error.h"
#include "wavroute/residual.h"

namespace wavroute::app {
namespace {

constexpr int kMostBusy = 1024;

struct StepOptions {
  std::string config;
  std::vector<std::string> sets, schemes, baselines{"eager"}, precisions;
  int rounds = 10, warmup = 2, busy = 0;
  bool json = false;
  std::string csv;
  int64_t vocab_size = 0;     // of the worker, and of the models; 0: the tokenizer's
  std::string device_name;    // of the CPU or GPU, for the rows
  uint64_t memory_limit = 0;  // bytes that all models may take together
};

// Whether `scheme` has the residual option that `set` names, or `set` names none.
bool concerns(const std::string& set, const std::string& scheme) {
  constexpr std::string_view kPrefix = "residual.";
  const auto name = set.substr(0, set.find('='));
  if (!name.starts_with(kPrefix) || name == "residual.scheme") return true;
  const auto known = std::ranges::find(scheme_catalog(), scheme, &SchemeOptions::scheme);
  return known != scheme_catalog().end() &&
         std::ranges::find(known->options, name.substr(kPrefix.size()), &OptionSpec::name) !=
             known->options.end();
}

// The --set of one model. An option that only another scheme of the list knows is left out of it.
std::vector<std::string> sets_for(const StepOptions& options, const std::string& scheme,
                                  const std::string& precision) {
  std::vector<std::string> sets;
  for (const auto& set : options.sets) {
    const auto knows = [&](const std::string& other) { return concerns(set, other); };
    if (knows(scheme) || std::ranges::none_of(options.schemes, knows)) sets.push_back(set);
  }
  sets.push_back("residual.scheme=" + scheme);
  sets.push_back("train.precision=" + precision);
  return sets;
}

// One model: what is timed, and what it takes.
struct TimedModel {
  Config config;  // resolved
  int64_t vocab_size = 0;
  Forecast forecast;
  double stock_bytes = 0;  // its memory on stock operators
};

TimedModel model_of(const StepOptions& options, const std::string& scheme,
                    const std::string& precision) {
  const Machine machine = probe_machine();
  TimedModel model;
  model.config = resolve_machine(load_config(options.config, sets_for(options, scheme, precision),
                                             scheme_catalog(), ConfigUse::kTrain)
                                     .config,
                                 machine);
  model.vocab_size = options.vocab_size > 0 ? options.vocab_size : vocabulary_of(model.config);
  Config whole = model.config;  // the worker takes the batch in one pass where nothing else is said
  if (whole.train.micro_batch == 0) whole.train.micro_batch = whole.train.batch;
  model.forecast = forecast(whole, model.vocab_size, machine);
  whole.train.kernels = KernelChoice::kComposed;
  model.stock_bytes = forecast(whole, model.vocab_size, machine).memory.total();
  return model;
}

// Roughly what the baseline takes besides [bytes]: composed of stock operators, every read keeps
// copies of its sources, on average of half the blocks. It decides only which children start
// together, and the first step replaces it.
double estimate_reads(const TimedModel& model, int64_t sources_per_block) {
  constexpr double kCopies = 5;
  if (sources_per_block == 0) return 0;
  const ModelConfig& m = model.config.model;
  const auto blocks = model.config.residual.options.find("blocks");
  const int64_t* count = blocks == model.config.residual.options.end()
                             ? nullptr
                             : std::get_if<int64_t>(&blocks->second);
  const double sources = static_cast<double>(count == nullptr ? 6 : *count) / 2 *
                         static_cast<double>(sources_per_block);
  const auto tokens = static_cast<double>(model.config.train.batch * m.context);
  return tokens * static_cast<double>(2 * m.layers * m.width) * 4 * kCopies * sources;
}

StepJob own_job(const StepOptions& options, const TimedModel& model) {
  const std::string& scheme = model.config.residual.scheme;
  StepJob job{scheme + " (wavroute)", "wavroute", scheme, {}, {}, 0};
  job.argv = {own_path(),     "bench",   "worker",
              options.config, "--vocab", std::to_string(model.vocab_size)};
  for (const auto& set : sets_for(options, scheme, to_string(model.config.train.precision))) {
    job.argv.insert(job.argv.end(), {"--set", set});
  }
  job.estimate_bytes = static_cast<uint64_t>(model.forecast.memory.total());
  return job;
}

StepJob baseline_job(const PyTorch& pytorch, const BaselineSupport& support,
                     const TimedModel& model, const std::string& provider) {
  const Config& config = model.config;
  const auto& m = config.model;
  const std::string& scheme = config.residual.scheme;
  StepJob job{fmt::format("{} ({})", scheme, provider), provider, scheme, {}, {}, 0};
  job.argv = {pytorch.python, pytorch.script.string(),
              "--provider",   provider,
              "--scheme",     scheme,
              "--precision",  to_string(config.train.precision),
              "--device",     to_string(config.train.device),
              "--layers",     std::to_string(m.layers),
              "--width",      std::to_string(m.width),
              "--heads",      std::to_string(m.heads),
              "--kv-heads",   std::to_string(m.kv_heads),
              "--hidden",     std::to_string(m.hidden),
              "--context",    std::to_string(m.context),
              "--batch",      std::to_string(config.train.batch),
              "--vocab",      std::to_string(model.vocab_size),
              "--eps",        fmt::format("{}", m.rms_norm_eps),
              "--threads",    std::to_string(config.train.threads)};
  // PyTorch's threads wait as they do by default.
  if (openmp_waiting().is_ours) job.unset = {"GOMP_SPINCOUNT", "WAVROUTE_SPINCOUNT"};
  for (auto& flag : baseline_flags(config.residual.options)) job.argv.push_back(std::move(flag));
  job.estimate_bytes = static_cast<uint64_t>(
      model.stock_bytes + estimate_reads(model, support.schemes.at(scheme).sources_per_block));
  return job;
}

// The baselines that can run here; if none can, notes why.
std::optional<BaselineSupport> find_baselines(const PyTorch& pytorch) {
  std::string missing = pytorch.missing();
  if (missing.empty()) {
    try {
      return ask_baseline(pytorch);
    } catch (const Failure& failure) {
      missing = failure.what();
    }
  }
  note(fmt::format("baselines are skipped: {} (WAVROUTE_PYTHON, WAVROUTE_BASELINE)", missing));
  return std::nullopt;
}

// All cells of one precision, ours and its baselines side by side.
std::vector<StepJob> jobs_for(const StepOptions& options, const std::string& precision) {
  std::vector<StepJob> jobs;
  const bool wants_baselines = std::ranges::any_of(
      options.baselines, [](const std::string& baseline) { return baseline != "none"; });
  PyTorch pytorch;
  std::optional<BaselineSupport> support;
  if (wants_baselines) {
    pytorch = find_pytorch(own_path());
    support = find_baselines(pytorch);
  }
  for (const auto& scheme : options.schemes) {
    const TimedModel model = model_of(options, scheme, precision);
    jobs.push_back(own_job(options, model));
    if (!support) continue;
    if (const auto why = support->missing(model.config); !why.empty()) {
      note(fmt::format("baselines of {} are skipped: {}", scheme, why));
      continue;
    }
    for (const auto& baseline : options.baselines) {
      if (baseline == "none") continue;
      jobs.push_back(baseline_job(pytorch, *support, model, baseline));
    }
  }
  return jobs;
}

// Fills in from the configuration what the command line leaves open.
void complete(StepOptions& options) {
  const auto config =
      load_config(options.config, options.sets, scheme_catalog(), ConfigUse::kCompare).config;
  if (options.schemes.empty()) options.schemes = config.compare.schemes;
  if (options.schemes.empty()) options.schemes = {config.residual.scheme};
  if (options.precisions.empty()) options.precisions = {to_string(config.train.precision)};
  Config automatic = config;
  automatic.train.precision.reset();
  const Machine machine = probe_machine();
  automatic = resolve_machine(automatic, machine);
  options.device_name = device_name(automatic, machine);
  options.memory_limit = usable_memory(automatic, machine);
  for (auto& precision : options.precisions) {
    if (precision == "auto") precision = to_string(automatic.train.precision);
  }
}

void show(const StepOptions& options, std::span<const StepResult> results) {
  if (options.json) {
    for (const auto& result : results) print(step_json(result).dump() + "\n");
  } else {
    print(step_table(results));
  }
  flush();
  for (const auto& result : results) {
    if (result.ok()) continue;
    note("wavroute: " + result.error);
    if (!result.hint.empty()) note("hint: " + result.hint);
  }
}

int bench_step(StepOptions options) {
  complete(options);
  StepPlan plan;
  plan.rounds = options.rounds;
  plan.warmup = options.warmup;
  plan.busy = options.busy;
  plan.memory_limit = options.memory_limit;
  bool failed = false;
  for (const auto& precision : options.precisions) {
    const auto jobs = jobs_for(options, precision);
    const auto results =
        measure_steps(jobs, plan, [](std::string_view what) { note(fmt::format("  {}", what)); });
    const auto keep = [&] {
      if (options.csv.empty()) return;
      append_step_csv(
          options.csv,
          {utc_now(), std::string(build_info().commit), options.device_name, probe_machine().cores},
          results);
    };
    keep_and_show(keep, [&] { show(options, results); });
    failed = failed || !std::ranges::all_of(results, &StepResult::ok);
  }
  return failed ? 1 : 0;
}

}  // namespace

void add_bench(CLI::App& root, Action& action) {
  auto* bench =
      root.add_subcommand("bench", "Time training steps, operators and the machine itself");
  bench->require_subcommand(1);
  add_bench_peak(*bench, action);
  add_bench_op(*bench, action);

  auto options = std::make_shared<StepOptions>();
  auto* step = bench->add_subcommand("step", "Time training steps of several schemes in turn");
  step->add_option("CONFIG", options->config, "A TOML file, or a shipped preset")->required();
  step->add_option("--schemes", options->schemes, "Default: compare.schemes")->delimiter(',');
  step->add_option("--baselines", options->baselines, "PyTorch baselines to time as well")
      ->delimiter(',')
      ->check(CLI::IsMember({"eager", "compile", "reduce-overhead", "max-autotune", "none"}))
      ->capture_default_str();
  step->add_option("--precision", options->precisions, "Default: train.precision")
      ->delimiter(',')
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  step->add_option("--rounds", options->rounds, "Timed steps of each model")
      ->check(integer_from(1, 1000000))
      ->capture_default_str();
  step->add_option("--warmup", options->warmup, "Steps before the timed ones")
      ->check(integer_from(0, 1000000))
      ->capture_default_str();
  step->add_option("--busy", options->busy,
                   "Also time each step beside this many processes that each keep a core busy")
      ->check(integer_from(0, kMostBusy))
      ->capture_default_str();
  step->add_option("--vocab", options->vocab_size, "Default: the size of data.tokenizer's")
      ->check(integer_from(1, 1000000));
  step->add_option("--set", options->sets, "section.key=value, overrides the file; repeatable")
      ->allow_extra_args(false);
  step->add_option("--csv", options->csv, "Append a row per result to this file");
  step->add_flag("--json", options->json, "Print one JSON object per line");
  step->footer(
      "Examples:\n"
      "    wavroute bench step bench --schemes prenorm,wav --baselines eager,compile\n"
      "    wavroute bench step bench --precision fp32,bf16 --baselines none --csv steps.csv");
  step->callback([options, &action] { action = [options] { return bench_step(*options); }; });

  // The child that `step` starts. An empty group hides it from the help.
  auto* worker = bench->add_subcommand("worker", "One model, stepped by a parent")->group("");
  worker->add_option("CONFIG", options->config)->required();
  worker->add_option("--set", options->sets)->allow_extra_args(false);
  worker->add_option("--vocab", options->vocab_size)->required()->check(integer_from(1));
  worker->callback([options, &action] {
    action = [options] {
      return run_bench_worker(options->config, options->sets, options->vocab_size);
    };
  });
}

}  // namespace wavroute::app
