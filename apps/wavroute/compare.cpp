// wavroute compare: a grid of schemes x depths x seeds.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <system_error>

#include "base/output.h"
#include "bench/step_bench.h"
#include "command.h"
#include "common.h"
#include "compare/compare_run.h"
#include "compare_plan.h"
#include "config/load.h"
#include "config/names.h"
#include "config/print.h"
#include "io/run_folder.h"
#include "report/html.h"
#include "report/table.h"
#include "train/forecast.h"
#include "train/process.h"
#include "train/session.h"
#include "validators.h"
#include "wavroute/error.h"
#include "wavroute/residual.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

struct CompareArguments {
  std::string config;
  std::vector<std::string> sets;
  fs::path out;
  std::string resume;
  int speed_rounds = 10;
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

// The cells with one micro_batch, which `config` gets too. `finished`: see plan_comparison.
ComparePlan plan_cells(Config& config, bool given_micro_batch,
                       const std::vector<bool>& finished = {}) {
  Config open = config;
  if (!given_micro_batch) open.train.micro_batch = 0;  // a variant may have a smaller batch
  ComparePlan plan =
      plan_comparison(expand_grid(open, scheme_catalog()), config.train.batch,
                      given_micro_batch ? 0 : config.train.micro_batch, probe_machine(), finished);
  if (!given_micro_batch) config.train.micro_batch = plan.micro_batch;
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

int dry_run(const Config& given, const fs::path& out, bool resumes) {
  const std::optional<Config> stored = stored_config(RunPaths{out}.config());
  Config config = resolve(given, stored);
  const ComparePlan plan = plan_cells(config, given.train.micro_batch > 0);
  check_memory(plan, resumes && stored);
  print(plan_text(plan) + "nothing was trained (--dry-run)\n");
  return 0;
}

// What the folder's comparison comes to, ready to be run.
ComparePlan prepare(const RunFolder& folder, const Config& given,
                    const std::vector<GridCell>& cells) {
  const RunPaths& paths = folder.paths();
  const std::optional<Config> stored = stored_config(paths.config());
  Config config = resolve(given, stored);
  if (stored) check_same_base(*stored, config);
  ComparePlan plan =
      plan_cells(config, given.train.micro_batch > 0, finished_cells(paths.root, cells));
  check_memory(plan, stored.has_value());
  plan.config = std::move(config);
  return plan;
}

// The first change of the folder, once it is certain that the grid goes on.
void begin(const RunFolder& folder, const Config& config) {
  if (!folder.warning().empty()) note("wavroute: " + folder.warning());
  const std::string left = left_half_written(folder.sweep());
  if (!left.empty()) note("wavroute: " + left);
  write_file_atomic(folder.paths().config(), to_toml(config));
}

// Steps the models in turn, each in a `wavroute bench worker` of its own.
std::vector<SpeedResult> measure_in_turn(const std::vector<SpeedJob>& models,
                                         const StepPlan& plan) {
  std::vector<StepJob> jobs;
  for (const SpeedJob& model : models) {
    StepJob& job = jobs.emplace_back();
    job.label = model.label;
    job.provider = "wavroute";
    job.scheme = model.scheme;
    job.argv = {own_path(), "bench",
                "worker",   model.config.string(),
                "--vocab",  std::to_string(model.vocab_size)};
    job.estimate_bytes = model.peak_bytes;
  }
  std::vector<SpeedResult> results;
  for (const StepResult& result : measure_steps(jobs, plan)) {
    results.push_back({result.tokens_per_s, result.ms_p50, result.peak_rss_bytes, result.parameters,
                       result.error});
  }
  return results;
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
  if (arguments.dry_run) return dry_run(given, out, !arguments.resume.empty());

  // Locked before it is looked at: nobody else can begin or change a comparison there any more.
  refuse_links(out, cells);
  const RunFolder folder = RunFolder::create(
      out, arguments.resume.empty() ? ExistingRun::kRefuse : ExistingRun::kResume);
  const ComparePlan plan = prepare(folder, given, cells);

  const StopSignal stop;
  CompareOptions options;
  options.out = out;
  options.program = own_path();
  if (arguments.speed_rounds > 0) {
    StepPlan plan_of_steps;
    plan_of_steps.rounds = arguments.speed_rounds;
    plan_of_steps.memory_limit = usable_memory(plan.config, probe_machine());
    options.measure_speed = [plan_of_steps](const std::vector<SpeedJob>& models) {
      return measure_in_turn(models, plan_of_steps);
    };
  }
  options.begin = [&] { begin(folder, plan.config); };
  options.stop = [] { return StopSignal::requested(); };
  // Hours may pass between two lines, and the terminal may be gone by then: the grid continues.
  options.say = note;
  const CompareOutcome outcome = run_comparison(plan.config, plan.cells, options);
  if (!outcome.complete) {
    note(fmt::format("stopped; to continue: wavroute compare {} --out {} --resume auto",
                     arguments.config, out.string()));
    return 1;
  }
  const bool has_report = report_or_say(out, folder.paths().report());
  try {
    print(arguments.json ? read_file(out / "compare.json")
                         : "\n" + terminal_table(make_table(outcome.comparison)) + "\n");
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
  command->add_flag("--dry-run", arguments->dry_run,
                    "Print size, cost and memory plan of every cell; train nothing");
  command->add_flag("--json", arguments->json, "Print compare.json instead of the table");
  command->callback([&action, arguments] { action = [arguments] { return compare(*arguments); }; });
}

}  // namespace wavroute::app
