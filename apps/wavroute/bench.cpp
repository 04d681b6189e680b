// `wavroute bench step`: training steps of several schemes and of PyTorch, timed in turn.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>

#include "bench/build_info.h"
#include "bench/machine.h"
#include "bench/pytorch.h"
#include "bench/step_bench.h"
#include "bench/step_table.h"
#include "bench_worker.h"
#include "command.h"
#include "common.h"
#include "config/load.h"
#include "train/session.h"
#include "wavroute/error.h"
#include "wavroute/residual.h"

namespace wavroute::app {
namespace {

struct StepOptions {
  std::string config;
  std::vector<std::string> sets, schemes, baselines{"eager"}, precisions;
  int rounds = 10, warmup = 2;
  bool json = false;
  std::string csv;
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

// The --set of one cell. An option that only another scheme of the list knows is left out of it.
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

int64_t blocks_of(const Config& config) {  // 0 = auto
  const auto blocks = config.residual.options.find("blocks");
  if (blocks == config.residual.options.end()) return 0;
  const auto* count = std::get_if<int64_t>(&blocks->second);
  return count == nullptr ? 0 : *count;
}

int64_t details_of(const std::string& scheme) {
  return scheme == "wav" ? 2 : scheme == "haares" ? 1 : 0;
}

// A rough upper estimate [bytes]: it decides only which children start together, and the first
// step replaces it.
uint64_t estimate_bytes(const Config& config, const std::string& scheme, bool baseline) {
  const auto& m = config.model;
  const auto width = static_cast<double>(m.width), layers = static_cast<double>(m.layers);
  const double hidden = m.hidden == 0 ? 4 * width : static_cast<double>(m.hidden);
  const double parameters = layers * (4 * width * width + 3 * width * hidden) + 512 * width;
  double sources = 0;  // that an average sublayer reads
  if (scheme == "full_attnres") {
    sources = layers;
  } else if (scheme.ends_with("res") || scheme == "wav") {
    const auto blocks = static_cast<double>(blocks_of(config) == 0 ? 6 : blocks_of(config));
    sources = (blocks / 2 + 1) * (1 + static_cast<double>(details_of(scheme))) + 1;
  }
  const double copies = baseline ? 5 : 2;  // of a source that one read keeps for the backward
  const double per_token = layers * 4 * (10 * width + 4 * hidden + 2 * width * copies * sources);
  const auto tokens = static_cast<double>(config.train.batch * m.context);
  return static_cast<uint64_t>(0.35e9 + 18 * parameters + tokens * per_token);
}

StepJob own_job(const StepOptions& options, const Config& config, const std::string& scheme,
                const std::string& precision) {
  StepJob job{scheme + " (wavroute)", "wavroute", scheme, {}, {}, 0};
  job.argv = {own_path(), "bench", "worker", options.config};
  for (const auto& set : sets_for(options, scheme, precision)) {
    job.argv.insert(job.argv.end(), {"--set", set});
  }
  job.estimate_bytes = estimate_bytes(config, scheme, false);
  return job;
}

// Why there is no baseline that does the same work; empty if there is one.
std::string no_baseline(const Config& config, const std::string& scheme) {
  if (scheme != "prenorm" && scheme != "block_attnres" && scheme != "haares" && scheme != "wav") {
    return "it has no PyTorch baseline";
  }
  if (config.model.tie_embeddings) return "the baseline has no tied embeddings";
  if (config.residual.options.contains("details")) return "the baseline has no option 'details'";
  return {};
}

StepJob baseline_job(const PyTorch& pytorch, const Config& config, const std::string& provider,
                     const std::string& scheme, const std::string& precision) {
  const auto& m = config.model;
  StepJob job{fmt::format("{} ({})", scheme, provider), provider, scheme, {}, {}, 0};
  job.argv = {pytorch.python, pytorch.script.string(),
              "--provider",   provider,
              "--scheme",     scheme,
              "--precision",  precision,
              "--device",     config.train.device,
              "--layers",     std::to_string(m.layers),
              "--width",      std::to_string(m.width),
              "--heads",      std::to_string(m.heads),
              "--kv-heads",   std::to_string(m.kv_heads),
              "--hidden",     std::to_string(m.hidden),
              "--context",    std::to_string(m.context),
              "--batch",      std::to_string(config.train.batch),
              "--blocks",     std::to_string(blocks_of(config)),
              "--eps",        fmt::format("{}", m.rms_norm_eps),
              "--threads",    std::to_string(config.train.threads)};
  const auto partial = config.residual.options.find("partial_details");
  if (partial != config.residual.options.end() && partial->second == OptionValue(false)) {
    job.argv.emplace_back("--no-partial-details");
  }
  job.estimate_bytes = estimate_bytes(config, scheme, true);
  return job;
}

// All cells of one precision, ours and its baselines side by side.
std::vector<StepJob> jobs_for(const StepOptions& options, const std::string& precision) {
  std::vector<StepJob> jobs;
  const bool wants_baselines = std::ranges::any_of(
      options.baselines, [](const std::string& baseline) { return baseline != "none"; });
  PyTorch pytorch;
  std::string missing;
  if (wants_baselines) {
    pytorch = find_pytorch(own_path());
    missing = pytorch.missing();
    if (!missing.empty()) {
      std::cerr << "baselines are skipped: " << missing
                << " (WAVROUTE_PYTHON, WAVROUTE_BASELINE)\n";
    }
  }
  for (const auto& scheme : options.schemes) {
    const auto sets = sets_for(options, scheme, precision);
    const auto config = resolve_machine(
        load_config(options.config, sets, scheme_catalog(), ConfigUse::kTrain).config,
        probe_machine());
    jobs.push_back(own_job(options, config, scheme, precision));
    if (!wants_baselines || !missing.empty()) continue;
    if (const auto why = no_baseline(config, scheme); !why.empty()) {
      std::cerr << fmt::format("baselines of {} are skipped: {}\n", scheme, why);
      continue;
    }
    for (const auto& baseline : options.baselines) {
      if (baseline == "none") continue;
      jobs.push_back(baseline_job(pytorch, config, baseline, scheme, precision));
    }
  }
  return jobs;
}

// Fills in what the command line left open from the configuration.
void complete(StepOptions& options) {
  const auto config =
      load_config(options.config, options.sets, scheme_catalog(), ConfigUse::kCompare).config;
  if (options.schemes.empty()) options.schemes = config.compare.schemes;
  if (options.schemes.empty()) options.schemes = {config.residual.scheme};
  if (options.precisions.empty()) options.precisions = {config.train.precision};
  Config automatic = config;
  automatic.train.precision = "auto";
  const auto resolved = resolve_machine(automatic, probe_machine()).train.precision;
  for (auto& precision : options.precisions) {
    if (precision == "auto") precision = resolved;
  }
}

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

void show(const StepOptions& options, std::span<const StepResult> results) {
  if (options.json) {
    for (const auto& result : results) std::cout << step_json(result).dump() << "\n";
  } else {
    std::cout << step_table(results);
  }
  std::cout.flush();
  for (const auto& result : results) {
    if (result.ok()) continue;
    std::cerr << "wavroute: " << result.error << "\n";
    if (!result.hint.empty()) std::cerr << "hint: " << result.hint << "\n";
  }
}

int bench_step(StepOptions options) {
  complete(options);
  StepPlan plan;
  plan.rounds = options.rounds;
  plan.warmup = options.warmup;
  bool failed = false;
  for (const auto& precision : options.precisions) {
    const auto jobs = jobs_for(options, precision);
    const auto results = measure_steps(
        jobs, plan, [](std::string_view what) { std::cerr << "  " << what << std::endl; });
    show(options, results);
    const auto machine = probe_machine();
    if (!options.csv.empty()) {
      append_step_csv(
          options.csv,
          {utc_now(), std::string(build_info().commit), machine.cpu_model, machine.cores}, results);
    }
    failed = failed || !std::ranges::all_of(results, &StepResult::ok);
  }
  return failed ? 1 : 0;
}

}  // namespace

void add_bench(CLI::App& root, Action& action) {
  auto* bench = root.add_subcommand("bench", "time this machine");
  bench->require_subcommand(1);

  auto options = std::make_shared<StepOptions>();
  auto* step = bench->add_subcommand("step", "training steps of several schemes, timed in turn");
  step->add_option("config", options->config, "a TOML file or a preset")->required();
  step->add_option("--schemes", options->schemes, "default: compare.schemes")->delimiter(',');
  step->add_option("--baselines", options->baselines, "PyTorch beside ours")
      ->delimiter(',')
      ->check(CLI::IsMember({"eager", "compile", "none"}))
      ->capture_default_str();
  step->add_option("--precision", options->precisions, "default: train.precision")
      ->delimiter(',')
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  step->add_option("--rounds", options->rounds, "steps of each that count")->capture_default_str();
  step->add_option("--warmup", options->warmup, "steps before those")->capture_default_str();
  step->add_option("--set", options->sets, "section.key=value")->allow_extra_args(false);
  step->add_option("--csv", options->csv, "append a row per result to this file");
  step->add_flag("--json", options->json, "one JSON object per line");
  step->callback([options, &action] { action = [options] { return bench_step(*options); }; });

  // The child that `step` starts. An empty group hides it from the help.
  auto* worker = bench->add_subcommand("worker", "one model, stepped by a parent")->group("");
  worker->add_option("config", options->config)->required();
  worker->add_option("--set", options->sets)->allow_extra_args(false);
  worker->callback([options, &action] {
    action = [options] { return run_bench_worker(options->config, options->sets); };
  });
}

}  // namespace wavroute::app
