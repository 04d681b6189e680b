// wavroute train: one model, one run folder.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "agreement.h"
#include "base/numbers.h"
#include "base/output.h"
#include "command.h"
#include "common.h"
#include "config/load.h"
#include "config/names.h"
#include "config/print.h"
#include "environment.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "model/device.h"
#include "report/html.h"
#include "scaling/device_plan.h"
#include "train/device_sizes.h"
#include "train/initial_weights.h"
#include "train/process.h"
#include "train/process_group.h"
#include "train/sinks.h"
#include "train/trainer.h"
#include "tried_steps.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostDevices = int64_t{1} << 20;

struct TrainArguments {
  std::string config;
  std::vector<std::string> sets;
  fs::path out;
  std::string resume;
  std::string group, torch;
  bool shards_optimizer = false;
  bool dry_run = false;
  std::optional<int64_t> devices;
  bool json = false;
  bool planned = false;
  bool quiet = false;
};

nlohmann::ordered_json to_json(const std::string& scheme, const Forecast& forecast) {
  const MemoryPlan& memory = forecast.memory;
  return {{"scheme", scheme},
          {"parameters", forecast.parameters},
          {"flops_per_token", forecast.flops_per_token},
          {"micro_batch", forecast.micro_batch},
          {"memory",
           {{"total_bytes", memory.total()},
            {"parameter_bytes", memory.parameters},
            {"activation_bytes", memory.activations},
            {"evaluation_bytes", memory.evaluation},
            {"process_bytes", memory.base},
            {"available_bytes", forecast.available}}}};
}

int dry_run(const Config& config, bool json) {
  const Session session = plan_session(config, BeyondMemory::kRefuse, probe_machine());
  for (const std::string& difference : check_initial_weights(session)) {
    note(fmt::format("wavroute: {}", difference));
  }
  const Config& resolved = session.config;
  const std::vector<ExpectedTime> times =
      expected_times({{resolved, session.forecast, session.corpus.tokenizer->vocab_size(),
                       session.corpus.valid.size()}});
  if (json) {
    nlohmann::ordered_json plan = to_json(resolved.residual.scheme, session.forecast);
    plan["expected_seconds"] = times[0].seconds;
    print_line(plan);
  } else {
    print(fmt::format("scheme           {}\n{}{}nothing was trained (--dry-run)\n",
                      resolved.residual.scheme, forecast_text(session.forecast), times[0].line));
  }
  finish_output();  // main doesn't check the output of training
  return 0;
}

// On paper: nothing is tried, and what doesn't fit is no error, since the devices may be others.
int dry_run_on_devices(const Config& config, int64_t devices, bool json) {
  const Machine machine = probe_machine();
  Config resolved = resolve_machine(config, machine);
  Decoder model(decoder_spec(resolved, vocabulary_of(resolved)), *resolved.train.precision,
                device_of(resolved));
  model.use_kernels(resolved.train.kernels);
  resolved.model = model.spec().model;
  const Forecast one = forecast(model, resolved, machine);
  const scaling::ModelSizes sizes = model_sizes(model, resolved);
  const scaling::DevicePlan plan =
      scaling::plan_devices(sizes, training_on_devices(sizes, one, resolved), devices);
  if (json) {
    nlohmann::ordered_json object = {{"scheme", sizes.scheme},
                                     {"parameters", one.parameters},
                                     {"flops_per_token", one.flops_per_token}};
    object.update(scaling::device_plan_json(plan));
    print_line(object);
  } else {
    print(
        fmt::format("scheme           {}\n"
                    "parameters       {}\n"
                    "FLOPs per token  {} (forward and backward)\n"
                    "{}nothing was trained (--dry-run)\n",
                    sizes.scheme, format_count(static_cast<double>(one.parameters)),
                    format_magnitude(one.flops_per_token), scaling::device_plan_text(plan)));
  }
  finish_output();
  return 0;
}

// Options that say more of a dry run.
void check_dry_run(const TrainArguments& arguments) {
  if (arguments.dry_run) return;
  const char* given = arguments.devices ? "--devices" : arguments.json ? "--json" : nullptr;
  if (given == nullptr) return;
  throw expected(fmt::format("--dry-run beside {}", given), "a training", {},
                 arguments.devices ? "--dry-run --devices N plans a training on N devices"
                                   : "metrics.jsonl has what a training measures, as JSON");
}

// The checkpoint to continue from; nothing if the run starts at step 0: with --resume new, or
// without any checkpoint. If there are only damaged ones, the user has to decide that it may start
// again.
std::optional<fs::path> checkpoint_to_resume(const RunPaths& paths, const std::string& which,
                                             Console& console) {
  if (which == "new") return std::nullopt;
  if (which != "auto") return resolve_run(paths.root, which);
  std::string damage;
  const auto found =
      newest_valid_checkpoint(paths.root, [&](const Checkpoint& skipped, const std::string& why) {
        console.warn(fmt::format("passed over {}: {}", skipped.path.string(), why));
        if (damage.empty()) damage = why;
      });
  if (found) return found->path;
  if (!damage.empty()) {
    throw expected("a whole checkpoint to go on from", fmt::format("none whole ({})", damage),
                   fmt::format("in {}", paths.checkpoints().string()),
                   "--resume new sets them aside and starts at step 0");
  }
  return std::nullopt;
}

// The configuration of the folder's run; nothing if there is no run yet. Its lock is held.
std::optional<Config> stored_config(const RunPaths& paths, const std::string& resume) {
  if (resume.empty()) return std::nullopt;
  check_run_format(paths);
  if (is_there(paths.config())) {
    return load_config(paths.config().string(), {}, scheme_catalog(), ConfigUse::kTrain).config;
  }
  if (resume == "new") return std::nullopt;
  const std::vector<Checkpoint> checkpoints = list_checkpoints(paths.root);
  // A run's files without its configuration, or somebody else's that bear the same names.
  const auto file = checkpoints.empty() ? paths.replaced_file() : checkpoints.back().path;
  if (!file) return std::nullopt;
  throw expected(fmt::format("the configuration that {} is of", file->string()), "none",
                 fmt::format("at {}", paths.config().string()),
                 "restore the run's config.toml, or choose another folder with --out; "
                 "--resume new sets checkpoints and metrics aside and starts at step 0");
}

// A run without a checkpoint starts again, with the same text.
void check_recorded_text(const RunPaths& paths, const Session& session) {
  const auto recorded = recorded_text(paths.env());
  const Corpus& corpus = session.corpus;
  if (!recorded ||
      (recorded->train == corpus.train_sha256 && recorded->valid == corpus.valid_sha256)) {
    return;
  }
  throw expected(fmt::format("the text that this run began with (sha256 {} and {} in {})",
                             recorded->train, recorded->valid, paths.env().string()),
                 "another: " + corpus.description, {},
                 "restore the old text, or give another --out for a new run");
}

void start_from_weights(Session& session, Console& console) {
  for (const std::string& note : load_initial_weights(session)) console.warn(note);
}

// The first process' configuration of the run in the folder, for all.
std::optional<Config> share_config(Processes& processes, const std::optional<Config>& stored) {
  if (processes.size() == 1) return stored;
  const std::string text = processes.exchange(stored ? to_toml(*stored) : std::string()).front();
  if (text.empty()) return std::nullopt;
  return parse_config(text, "config.toml", scheme_catalog(), ConfigUse::kTrain);
}

// Processes of one machine share its memory.
Machine share_of_machine(const Processes& processes) {
  Machine machine = probe_machine();
  const char* local = std::getenv("LOCAL_WORLD_SIZE");
  if (processes.size() > 1 && local != nullptr) {
    machine.memory_available /= static_cast<uint64_t>(std::max(1, std::atoi(local)));
  }
  return machine;
}

int train_in(Processes& processes, const TrainArguments& arguments) {
  const bool resumes = !arguments.resume.empty();
  Config config;
  RunPaths paths;
  together(processes, [&] {
    check_dry_run(arguments);
    config =
        load_config(arguments.config, arguments.sets, scheme_catalog(), ConfigUse::kTrain).config;
    paths.root = arguments.out.empty() ? fs::path("runs") / config.name : arguments.out;
    check_names(config);
  });
  if (arguments.dry_run) {
    if (!processes.is_first()) return 0;
    check_out(paths.root);
    return arguments.devices ? dry_run_on_devices(config, *arguments.devices, arguments.json)
                             : dry_run(config, arguments.json);
  }
  check_same_start(processes, config,
                   {{"torch", arguments.torch},
                    {"--out", paths.root.string()},
                    {"--resume", resumes ? arguments.resume : "not given"},
                    {"--shard-optimizer", arguments.shards_optimizer ? "given" : "not given"}});
  const auto existing = resumes ? ExistingRun::kResume : ExistingRun::kRefuse;

  // Locked before its content is read: no other process can start a run there any more. A new
  // folder is removed again if the configuration turns out to be invalid.
  std::optional<RunFolder> folder;
  std::optional<Config> stored;
  in_first(processes, [&] {
    check_out(paths.root);
    check_sinks(config.train.sinks);
    folder.emplace(RunFolder::create(paths.root, existing));
    stored = stored_config(paths, arguments.resume);
  });
  stored = share_config(processes, stored);
  const Machine machine = share_of_machine(processes);
  Session session;
  Console console(arguments.quiet, /*silent=*/!processes.is_first());
  if (stored) {
    const int64_t threads = config.train.threads;
    config = inherit_resolved(config, *stored);
    // Those of the run are of another number of processes, perhaps.
    if (processes.size() > 1) config.train.threads = threads;
  }
  config = with_same_machine(processes, config, machine);
  together(processes, [&] {
    const bool keeps_plan = stored || arguments.planned;
    session =
        open_session(config, keeps_plan ? BeyondMemory::kGoOn : BeyondMemory::kRefuse, machine);
  });
  check_same_text(processes, session);
  session.config.train.micro_batch =
      common_micro_batch(processes, session.config.train.micro_batch);
  in_first(processes, [&] {
    if (stored) check_resumable(*stored, session.config);
    // Before the log is: a folder that holds nothing is taken away again.
    if (!resumes) start_from_weights(session, console);
    if (!folder->warning().empty()) console.warn(folder->warning());
  });
  std::optional<Trainer> made;
  together(processes, [&] {
    made.emplace(session, paths, console, processes,
                 arguments.shards_optimizer ? Optimizer::kSharded : Optimizer::kWhole);
  });
  Trainer& trainer = *made;
  if (processes.is_first()) console.open_log(paths.log());
  if (!session.forecast.fits()) {
    console.warn(
        fmt::format("{}; the run continues with it", beyond_memory(session.forecast).what()));
  }
  if (resumes) {
    std::optional<fs::path> checkpoint;
    in_first(processes,
             [&] { checkpoint = checkpoint_to_resume(paths, arguments.resume, console); });
    // The others only hear whether there is one.
    const std::string found = checkpoint ? checkpoint->string() : std::string();
    if (const std::string first = processes.exchange(found).front(); !first.empty()) {
      // Weights are read again only where another folder is said to have them.
      const bool is_moved =
          processes.is_first() && stored && stored->train.init != config.train.init;
      trainer.resume(
          first, is_moved ? std::optional(initial_weights_sha256(session.config)) : std::nullopt);
    } else {
      in_first(processes, [&] {
        if (stored) check_recorded_text(paths, session);
        start_from_weights(session, console);
      });
      trainer.begin();
    }
  }
  in_first(processes, [&] {
    if (resumes) {
      const std::string left = left_half_written(folder->sweep());
      if (!left.empty()) console.warn(left);
    }
    write_file_atomic(paths.config(), to_toml(session.config));
    if (const auto change =
            record_environment(paths.env(), session, trainer.steps_done(), processes.size())) {
      console.warn(*change);
    }
  });
  const bool is_whole = trainer.run();
  if (!processes.is_first()) return is_whole ? 0 : 1;
  if (!is_whole) {
    console.note(fmt::format("to continue: wavroute train {} --out {} --resume auto",
                             arguments.config, paths.root.string()));
    return 1;
  }
  try {
    const std::vector<fs::path> runs = {paths.root};
    write_report(runs, paths.report());
    console.note(fmt::format("report: {}", paths.report().string()));
  } catch (const std::exception& error) {
    console.warn_side_file(paths.report(), error.what());
  }
  console.note(fmt::format("next: wavroute generate {} --prompt \"...\"", paths.root.string()));
  return 0;
}

int train(const TrainArguments& arguments) {
  if (arguments.group.empty()) return train_in(single_process(), arguments);
  const std::unique_ptr<Processes> processes = join_process_group(arguments.group);
  return train_in(*processes, arguments);
}

}  // namespace

void add_train(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("train", "Train one model and write its run folder");
  auto arguments = std::make_shared<TrainArguments>();
  command->add_option("CONFIG", arguments->config, "A TOML file, or the name of a shipped preset")
      ->required();
  command->add_option("--set", arguments->sets, "section.key=value, overrides the file; repeatable")
      ->allow_extra_args(false);
  command->add_option("-o,--out", arguments->out, "The run folder (default: runs/NAME)");
  command->add_option("--resume", arguments->resume,
                      "'auto': go on from the newest checkpoint, or begin; a step; or 'new': begin "
                      "at step 0 and set checkpoints and metrics aside");
  command->add_flag("--dry-run", arguments->dry_run,
                    "Print size, cost and memory plan; train nothing");
  command
      ->add_option("--devices", arguments->devices,
                   "With --dry-run: memory and traffic on N devices (docs/scaling.md)")
      ->option_text("N")
      ->check(integer_from(1, kMostDevices));
  command->add_flag("--json", arguments->json, "With --dry-run: as one JSON object");
  // wavroute compare plans the memory of all its cells at once. An empty group hides it.
  command->add_flag("--planned", arguments->planned)->group("");
  command->add_flag("--shard-optimizer", arguments->shards_optimizer,
                    "With torchrun: each process keeps the optimizer's moments of its share alone");
  // python -m wavroute names the process group of torch.distributed that it has made, and its
  // version of torch.
  command->add_option("--group", arguments->group)->group("");
  command->add_option("--torch", arguments->torch)->group("");
  command->add_flag("-q,--quiet", arguments->quiet, "Print warnings and errors only");
  command->footer(
      "Examples:\n"
      "    wavroute train tiny --dry-run                          size, memory and time\n"
      "    wavroute train tiny --dry-run --devices 4              on paper, on four devices\n"
      "    wavroute train tiny --out runs/first --set residual.scheme=haares\n"
      "    wavroute train tiny --out runs/first --resume auto     goes on after a break\n"
      "    wavroute train my.toml --set data.train=book.txt");
  command->callback([&action, arguments] { action = [arguments] { return train(*arguments); }; });
}

}  // namespace wavroute::app
