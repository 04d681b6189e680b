// wavroute compare: a grid of schemes x depths x seeds.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <system_error>
#include <thread>

#include "base/output.h"
#include "bench/step_bench.h"
#include "command.h"
#include "common.h"
#include "compare/compare_run.h"
#include "compare_plan.h"
#include "config/load.h"
#include "config/names.h"
#include "config/print.h"
#include "io/file.h"
#include "io/run_folder.h"
#include "report/html.h"
#include "report/run_data.h"
#include "report/summary_words.h"
#include "report/table.h"
#include "train/forecast.h"
#include "train/process.h"
#include "train/session.h"
#include "train/sinks.h"
#include "validators.h"
#include "wavroute/error.h"
#include "wavroute/residual.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kWidth = 100;  // of the paragraph above the table, in columns

struct CompareArguments {
  std::string config;
  std::vector<std::string> sets;
  fs::path out;
  std::string resume;
  int speed_rounds = 10;
  int64_t only = 0;  // a cell's number, from 1; 0: all of them
  bool list_cells = false;
  bool dry_run = false;
  bool json = false;
};

// The table matters more than the page: if the page can't be made, that is reported.
bool report_or_say(const fs::path& out, const fs::path& page) {
  try {
    const std::vector<fs::path> folders = {out};
    write_report(folders, page);
    note(fmt::format("report: {}", page.string()));
    return true;
  } catch (const std::exception& error) {
    note(fmt::format("no report: {}", error.what()));
    return false;
  }
}

// What a resumed comparison began with; nothing where none lies there. A comparison's lock is held,
// or nothing will be written.
std::optional<Config> stored_config(const fs::path& file) {
  if (!is_there(file)) return std::nullopt;
  return load_config(file.string(), {}, scheme_catalog(), ConfigUse::kCompare).config;
}

// Whatever says auto is resolved once for all cells, and kept by a resume: cells of different
// precision would be no pairs.
Config resolve(const Config& given, const std::optional<Config>& stored) {
  Config config = given;
  if (stored) {
    config = inherit_resolved(config, *stored);
    config.name = given.name;
    config.compare = given.compare;
    // A comparison of before there were jobs trained its cells one by one.
    if (!config.compare.jobs) config.compare.jobs = stored->compare.jobs.value_or(1);
  }
  return resolve_machine(std::move(config), probe_machine());
}

// A grid may grow, and its text may lie elsewhere (what it holds, run_comparison looks at); what
// its finished cells were trained with may not change.
void check_same_base(const Config& stored, const Config& config) {
  std::string changed;
  for (const std::string& key : changed_keys(stored, config)) {
    if (key.starts_with("compare.") || key == "name") continue;
    if (key == "data.train" || key == "data.valid") continue;
    changed += (changed.empty() ? "" : ", ") + key;
  }
  if (!changed.empty()) {
    throw expected("the configuration that the comparison began with", "another " + changed, {},
                   "give another --out for a new comparison");
  }
}

// The parameters of the model that is finished in a cell's folder; -1 where none is.
int64_t trained_parameters(const fs::path& out, const GridCell& cell) {
  if (!finished_cells(out, {cell}).front()) return -1;
  const auto parameters = read_run(out / "cells" / cell.folder).parameters;
  return parameters ? static_cast<int64_t>(*parameters) : 0;
}

// The plan with one micro_batch for all cells. `out`: where finished cells lie; empty: not looked
// for.
ComparePlan plan_cells(const Config& config, const Config& given, const fs::path& out) {
  const bool has_micro_batch = given.train.micro_batch > 0;
  Config open = config;
  if (!has_micro_batch) open.train.micro_batch = 0;  // a variant may have a smaller batch
  PlanRequest request;
  request.config = config;
  request.expand = [&](std::span<const WiderBaseline> wider) {
    return expand_grid(open, scheme_catalog(), wider);
  };
  request.trained_parameters = [&](const GridCell& cell) {
    return out.empty() ? -1 : trained_parameters(out, cell);
  };
  request.micro_batch = has_micro_batch ? 0 : config.train.micro_batch;
  ComparePlan plan = plan_comparison(request, probe_machine());
  if (!has_micro_batch) plan.config.train.micro_batch = plan.micro_batch;
  plan.config.compare.jobs = plan.jobs;
  return plan;
}

// More memory than is free: on a resume the micro_batch is the one that the comparison began with,
// and that is only worth a warning.
void check_memory(const ComparePlan& plan, bool resumed) {
  if (plan.beyond_memory.empty()) return;
  if (!resumed) throw UserError(plan.beyond_memory, plan.hint);
  note(
      fmt::format("wavroute: {}; the comparison goes on with it, as it began", plan.beyond_memory));
}

// --dry-run and --list-cells: what would be done, of which nothing is.
int show_plan(const CompareArguments& arguments, const Config& given, const fs::path& out) {
  const std::optional<Config> stored = stored_config(RunPaths{out}.config());
  const Config config = resolve(given, stored);
  const fs::path known = arguments.list_cells && stored ? out : fs::path();
  const ComparePlan plan = plan_cells(config, given, known);
  if (arguments.list_cells) {
    print(list_text(plan, arguments.json));
    return 0;
  }
  check_memory(plan, !arguments.resume.empty() && stored);
  print(plan_text(plan) + "nothing was trained (--dry-run)\n");
  return 0;
}

// What the folder's comparison comes to, ready to be run.
ComparePlan prepare(const RunFolder& folder, const Config& given) {
  const RunPaths& paths = folder.paths();
  const std::optional<Config> stored = stored_config(paths.config());
  const Config config = resolve(given, stored);
  if (stored) check_same_base(*stored, config);
  ComparePlan plan = plan_cells(config, given, paths.root);
  check_memory(plan, stored.has_value());
  refuse_links(paths.root, plan.cells);  // rows of wider baselines are known by now
  return plan;
}

// The first change of the folder, once it is certain that the grid goes on.
void begin(const RunFolder& folder, const Config& config) {
  if (!folder.warning().empty()) note("wavroute: " + folder.warning());
  const std::string left = left_half_written(folder.sweep());
  if (!left.empty()) note("wavroute: " + left);
  write_file_atomic(folder.paths().config(), to_toml(config));
}

// Steps the models in turn, each in a `wavroute bench worker` of its own on all threads.
std::vector<SpeedResult> measure_in_turn(const std::vector<SpeedJob>& models, const StepPlan& plan,
                                         int64_t threads) {
  std::vector<StepJob> jobs;
  for (const SpeedJob& model : models) {
    StepJob& job = jobs.emplace_back();
    job.label = model.label;
    job.provider = "wavroute";
    job.scheme = model.scheme;
    job.argv = {own_path(), "bench",
                "worker",   model.config.string(),
                "--vocab",  std::to_string(model.vocab_size),
                "--set",    fmt::format("train.threads={}", threads)};
    job.estimate_bytes = model.peak_bytes;
  }
  std::vector<SpeedResult> results;
  for (const StepResult& result : measure_steps(jobs, plan)) {
    results.push_back({result.tokens_per_s, result.ms_p50, result.peak_rss_bytes, result.parameters,
                       result.error});
  }
  return results;
}

CompareOptions options_of(const CompareArguments& arguments, const fs::path& out,
                          const ComparePlan& plan) {
  CompareOptions options;
  options.out = out;
  options.program = own_path();
  options.jobs = plan.jobs;
  if (arguments.speed_rounds > 0) {
    StepPlan plan_of_steps;
    plan_of_steps.rounds = arguments.speed_rounds;
    plan_of_steps.memory_limit = usable_memory(plan.config, probe_machine());
    options.measure_speed =
        [plan_of_steps, threads = plan.config.train.threads](const std::vector<SpeedJob>& models) {
          return measure_in_turn(models, plan_of_steps, threads);
        };
  }
  options.stop = [] { return StopSignal::requested(); };
  // Hours may pass between two lines, and the terminal may be gone by then: the grid continues.
  options.say = note;
  return options;
}

// The comparison's folder, locked. One that another cell's job prepares is free in a moment.
RunFolder folder_beside_others(const fs::path& out) {
  constexpr int kTries = 300, kFewest = 5;  // it may have been given up since
  constexpr std::chrono::milliseconds kPause(100);
  for (int i = 0;; ++i) {
    try {
      return RunFolder::create(out, ExistingRun::kResume);
    } catch (const UserError&) {
      const bool may_be_free_soon = i < kFewest || is_held(out).value_or(false);
      if (i >= kTries || !may_be_free_soon || StopSignal::requested()) throw;
    }
    std::this_thread::sleep_for(kPause);
  }
}

// --only: the folder is locked while the plan is made and written, the cell's own for the training.
int train_only(const CompareArguments& arguments, const Config& given, const fs::path& out) {
  const StopSignal stop;
  ComparePlan plan;
  {
    const RunFolder folder = folder_beside_others(out);
    plan = prepare(folder, given);
    if (arguments.only > std::ssize(plan.cells)) {
      throw expected(fmt::format("the number of a cell, from 1 to {}", plan.cells.size()),
                     arguments.only, "for --only", "--list-cells has the numbers");
    }
    if (!is_there(folder.paths().config())) begin(folder, plan.config);
  }
  const auto index = static_cast<size_t>(arguments.only - 1);
  const CompareOptions options = options_of(arguments, out, plan);
  const wavroute::Cell cell = train_one_cell(plan.config, plan.cells, index, options);
  if (StopSignal::requested()) {
    note(fmt::format("stopped; to continue: wavroute compare {} --out {} --only {}",
                     arguments.config, out.string(), arguments.only));
    return 1;
  }
  if (arguments.json) {
    nlohmann::ordered_json result = {{"n", arguments.only},
                                     {"folder", plan.cells[index].folder},
                                     {"status", to_string(cell.status)},
                                     {"val_loss", nullptr}};
    if (cell.val_loss) result["val_loss"] = *cell.val_loss;
    print(result.dump() + "\n");
  }
  return cell.status == CellStatus::kFinished ? 0 : 1;
}

int compare(const CompareArguments& arguments) {
  if (!arguments.resume.empty() && arguments.resume != "auto") {
    throw expected("--resume auto", fmt::format("'{}'", arguments.resume));
  }
  const Config given =
      load_config(arguments.config, arguments.sets, scheme_catalog(), ConfigUse::kCompare).config;
  const fs::path out = arguments.out.empty() ? fs::path("runs") / given.name : arguments.out;
  check_names(given);
  check_out(out);
  const std::vector<GridCell> cells = expand_grid(given, scheme_catalog());
  check_overrides(arguments.sets, cells, scheme_catalog());
  if (arguments.dry_run || arguments.list_cells) return show_plan(arguments, given, out);
  check_sinks(given.train.sinks);

  // Locked before it is looked at: nobody else can begin or change a comparison there any more.
  refuse_links(out, cells);
  if (arguments.only > 0) return train_only(arguments, given, out);
  const RunFolder folder = RunFolder::create(
      out, arguments.resume.empty() ? ExistingRun::kRefuse : ExistingRun::kResume);
  const ComparePlan plan = prepare(folder, given);

  const StopSignal stop;
  CompareOptions options = options_of(arguments, out, plan);
  options.begin = [&] {
    begin(folder, plan.config);
    if (plan.jobs > 1) {
      note(fmt::format("{} cells at a time, {} of {} threads each", plan.jobs,
                       plan.cells.front().config.train.threads, plan.config.train.threads));
    }
  };
  const CompareOutcome outcome = run_comparison(plan.config, plan.cells, options);
  if (!outcome.complete) {
    note(fmt::format("stopped; to continue: wavroute compare {} --out {} --resume auto",
                     arguments.config, out.string()));
    return 1;
  }
  const bool has_report = report_or_say(out, folder.paths().report());
  try {
    const Table table = make_table(outcome.comparison);
    print(arguments.json
              ? read_file(out / "compare.json")
              : fmt::format("\n{}\n\n{}\n",
                            wrapped(summary_paragraph(outcome.comparison, table), kWidth),
                            terminal_table(table)));
  } catch (const std::system_error&) {
    // The stream keeps its error flag: main reports it, with the exit code of the cells.
  }
  const bool all_finished = std::ranges::all_of(
      outcome.comparison.cells,
      [](const wavroute::Cell& cell) { return cell.status == CellStatus::kFinished; });
  return has_report && all_finished ? 0 : 1;
}

}  // namespace

void add_compare(CLI::App& root, Action& action) {
  auto* command =
      root.add_subcommand("compare", "Train a grid of schemes x depths x seeds and compare them");
  auto arguments = std::make_shared<CompareArguments>();
  command->add_option("CONFIG", arguments->config, "A TOML file, or the name of a shipped preset")
      ->required();
  command->add_option("--set", arguments->sets, "section.key=value, overrides the file; repeatable")
      ->allow_extra_args(false);
  command->add_option("-o,--out", arguments->out, "The folder (default: runs/NAME)");
  command->add_option("--resume", arguments->resume, "'auto': keep finished cells and continue");
  command
      ->add_option("--speed-rounds", arguments->speed_rounds,
                   "Steps per model in the speed measurement; 0: none")
      ->check(integer_from(0, 1000000))
      ->capture_default_str();
  auto* dry_run = command->add_flag(
      "--dry-run", arguments->dry_run,
      "Print size, memory plan and time of every cell, from steps that are tried; train nothing");
  auto* list = command->add_flag("--list-cells", arguments->list_cells,
                                 "Print the numbers and folders of the cells; train nothing");
  auto* only = command->add_option("--only", arguments->only,
                                   "Train cell N alone, beside other processes that train others");
  only->check(integer_from(1))->type_name("N");
  dry_run->excludes(list)->excludes(only);
  list->excludes(only);
  command->add_flag("--json", arguments->json,
                    "Print compare.json instead of the table, or the list of cells as JSON");
  command->footer(
      "Examples:\n"
      "    wavroute compare depth --dry-run                 how long will it take?\n"
      "    wavroute compare depth --out runs/depth          train, then table and report\n"
      "    wavroute compare depth --out runs/depth --resume auto\n"
      "    wavroute compare depth --set 'compare.lrs=[5e-4, 1e-3, 2e-3]'\n"
      "    wavroute compare depth --set 'compare.budgets=[0.5, 2.0]'\n"
      "As jobs of a scheduler, then collected:\n"
      "    wavroute compare depth --list-cells --json\n"
      "    wavroute compare depth --out runs/depth --only 7\n"
      "    wavroute compare depth --out runs/depth --resume auto");
  command->callback([&action, arguments] { action = [arguments] { return compare(*arguments); }; });
}

}  // namespace wavroute::app
