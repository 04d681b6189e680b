#include "compare/compare_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>
#include <thread>

#include "base/machine.h"
#include "base/printable.h"
#include "base/utc.h"
#include "compare/child.h"
#include "config/print.h"
#include "io/file.h"
#include "io/json_text.h"
#include "io/link.h"
#include "io/run_folder.h"
#include "report/run_data.h"
#include "report/run_settings.h"
#include "report/table.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kLockPause(100);
constexpr int kLockTries = 200;

// What the speed measurement needs of a trained cell.
struct Trained {
  std::optional<int64_t> vocab_size;
  uint64_t peak_bytes = 0;
  std::string corpus;  // its text, described
};

// A train process of a comparison that was killed ends its step and saves before it goes.
void wait_until_free(const fs::path& folder, const std::function<bool()>& stop) {
  for (int i = 0; i < kLockTries && !stop(); ++i) {
    try {
      const FileLock lock(folder);
      return;
    } catch (const UserError&) {
      std::this_thread::sleep_for(kLockPause);
    }
  }
}

// What a cell's result follows from, but for its texts: those are known by their sha256
// (check_text), wherever they lie.
RunSettings settings_of(const std::string& toml, const std::string& file) {
  RunSettings settings = read_run_config(toml, file).settings;
  settings.erase("data.train");
  settings.erase("data.valid");
  return settings;
}

std::string loss_text(const std::optional<double>& loss) {
  return loss ? fmt::format("loss {:.4f}", *loss) : "no loss";
}

class Run {
 public:
  Run(const Config& config, const std::vector<GridCell>& cells, const CompareOptions& options)
      : cells_(cells), options_(options), trained_(cells.size()) {
    comparison_.name = config.name;
    comparison_.created = utc_now();
    const Machine machine = probe_machine();
    comparison_.machine = {{"cpu", machine.cpu_model},
                           {"cores", machine.cores},
                           {"memory_bytes", machine.memory_total}};
    read_speed();
    for (const GridCell& plan : cells) {
      Cell cell;
      cell.label = plan.label;
      cell.scheme = plan.config.residual.scheme;
      cell.depth = plan.config.model.layers;
      cell.seed = plan.config.train.seed;
      cell.run = fs::path("cells") / plan.folder;
      comparison_.cells.push_back(std::move(cell));
      const size_t i = comparison_.cells.size() - 1;
      if (!fs::exists(folder(i) / "summary.json")) continue;
      refuse_other_configuration(i);
      take_old_result(i);
    }
  }

  CompareOutcome run() {
    make_folders(options_.out / "configs");
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (options_.stop()) return {comparison_, false};
      train(i);
      try {
        save();
      } catch (const std::exception& error) {  // the save at the end must succeed
        options_.say(fmt::format("compare.json: {}", error.what()));
      }
    }
    if (options_.stop()) return {comparison_, false};
    measure_speed();
    save();
    return {comparison_, !options_.stop()};
  }

 private:
  fs::path config_path(size_t i) const {
    return options_.out / "configs" / (cells_[i].folder + ".toml");
  }
  fs::path log_path(size_t i) const {
    return options_.out / "configs" / (cells_[i].folder + ".log");
  }
  fs::path folder(size_t i) const { return options_.out / "cells" / cells_[i].folder; }

  // Speeds of an earlier call are kept until they are measured again.
  void read_speed() {
    const fs::path file = options_.out / "compare.json";
    if (fs::exists(file)) {
      comparison_.speed = parse_comparison(read_json(file), file.string()).speed;
    }
  }

  // A cell counts only for the configuration that it was trained with.
  void refuse_other_configuration(size_t i) const {
    if (!fs::exists(config_path(i))) return;
    const std::string stored = read_file(config_path(i));
    const std::string file = config_path(i).string();
    if (settings_of(stored, file) == settings_of(to_toml(cells_[i].config), file)) return;
    throw expected(fmt::format("the configuration that cell {} was trained with", cells_[i].folder),
                   "another", "in " + config_path(i).string(),
                   "give the variant a new label, or another --out");
  }

  // Losses of cells are paired only if they come from the same text.
  void check_text(size_t i) const {
    const Measure& measure = comparison_.cells[i].measure;
    const std::string text = measure.train_text + " " + measure.valid_text;
    if (cells_[i].text.empty() || measure.train_text.empty() || text == cells_[i].text) return;
    throw expected("one text for all cells, sha256 " + cells_[i].text, text,
                   "in cell " + cells_[i].folder,
                   "the text has changed since the first cells were trained: give another --out");
  }

  // The cells that an earlier call trained. Those that can't be read are trained again.
  void take_old_result(size_t i) {
    try {
      read_run_of(i);
    } catch (const UserError& error) {
      options_.say(
          fmt::format("{} can't be read, and is resumed: {}", cells_[i].folder, error.what()));
      return;
    }
    check_text(i);
    refuse_other_run(i);
  }

  // What was trained in the cell's folder counts only where it is what the cell is to be: somebody
  // may have given it more steps.
  void refuse_other_run(size_t i) const {
    const RunSettings planned = read_run_config(to_toml(cells_[i].config), "").settings;
    const auto keys = unplanned_keys(planned, comparison_.cells[i].settings);
    if (keys.empty()) return;
    throw expected(
        fmt::format("a run of the comparison's configuration for cell {}", cells_[i].folder),
        fmt::format("one that differs in {}", fmt::join(keys, ", ")), "in " + folder(i).string(),
        "remove or rename that folder to have the cell trained again, or give another "
        "--out");
  }

  // The cell's state by its run folder.
  void read_run_of(size_t i) {
    Cell& cell = comparison_.cells[i];
    const RunData run = read_run(folder(i));
    take_run(cell, run);
    if (cell.status == CellStatus::kFinished && !cell.val_loss) cell.status = CellStatus::kFailed;
    trained_[i] = {integer_at(run.summary, "vocab_size"),
                   static_cast<uint64_t>(std::clamp(run.peak_rss_bytes.value_or(0.0), 0.0, 1e18)),
                   text_at(run.summary, "corpus")};
  }

  // Trains one cell. Whatever goes wrong with it is reported and marked.
  void train(size_t i) {
    Cell& cell = comparison_.cells[i];
    const std::string place = fmt::format("[{}/{}] {} ", i + 1, cells_.size(), cells_[i].folder);
    if (cell.status == CellStatus::kFinished) {
      options_.say(fmt::format("{} is there: {}", place, loss_text(cell.val_loss)));
      return;
    }
    const auto start = std::chrono::steady_clock::now();
    cell.status = CellStatus::kPending;
    std::string trouble;
    try {
      trouble = train_child(i);
    } catch (const std::exception& error) {
      trouble = error.what();
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (trouble.empty() && cell.status == CellStatus::kFinished) {
      options_.say(fmt::format("{} {}  {:.0f} s", place, loss_text(cell.val_loss), seconds));
      return;
    }
    if (options_.stop()) return;  // the same signal stopped the child
    if (cell.status != CellStatus::kDiverged) cell.status = CellStatus::kFailed;
    if (trouble.empty()) trouble = "it ended without a finite validation loss";
    options_.say(fmt::format("{} {}: {}", place, to_string(cell.status), trouble));
  }

  // What went wrong; empty if nothing did.
  std::string train_child(size_t i) {
    write_file_atomic(config_path(i), to_toml(cells_[i].config));
    make_folders(folder(i));
    wait_until_free(folder(i), options_.stop);
    const ChildResult child =
        run_child({options_.program, "train", config_path(i).string(), "--out", folder(i).string(),
                   "--resume", "auto", "--planned"},
                  log_path(i), options_.stop);
    if (is_run_folder(folder(i))) read_run_of(i);
    if (child.exit_code != 0) {
      return fmt::format("exit code {}\n{}", child.exit_code, child.error_tail);
    }
    check_text(i);
    return {};
  }

  // One job per label and depth, with the seed of its first cell, all steps taken in turn.
  void measure_speed() {
    if (!options_.measure_speed) return;
    std::vector<SpeedJob> jobs;
    std::vector<size_t> of;
    std::set<std::pair<std::string, int64_t>> seen;
    for (size_t i = 0; i < cells_.size(); ++i) {
      const Cell& cell = comparison_.cells[i];
      if (cell.status != CellStatus::kFinished || !seen.insert({cell.label, *cell.depth}).second) {
        continue;
      }
      if (!trained_[i].vocab_size) {
        options_.say(fmt::format("no speed of {} L{}: its summary.json names no vocab_size",
                                 cell.label, *cell.depth));
        continue;
      }
      SpeedJob job;
      job.label = fmt::format("{} L{}", cell.label, *cell.depth);
      job.scheme = cell.scheme;
      job.config = folder(i) / "config.toml";
      job.vocab_size = *trained_[i].vocab_size;
      job.peak_bytes = trained_[i].peak_bytes;
      jobs.push_back(std::move(job));
      of.push_back(i);
    }
    if (jobs.empty()) return;
    options_.say(fmt::format("measuring speed: {} models, their steps in turn", jobs.size()));
    std::vector<SpeedResult> results;
    try {
      results = options_.measure_speed(jobs);
    } catch (const std::exception& error) {  // the losses stand without it
      options_.say(fmt::format("no speed: {}", error.what()));
      return;
    }
    if (options_.stop()) return;  // the same signal stopped the workers
    comparison_.speed.clear();
    for (size_t j = 0; j < results.size(); ++j) {
      const SpeedResult& result = results[j];
      if (!result.error.empty()) {
        options_.say(fmt::format("no speed of {}: {}", jobs[j].label, result.error));
        continue;
      }
      const Cell& cell = comparison_.cells[of[j]];
      if (static_cast<double>(result.parameters) != cell.parameters) {
        options_.say(fmt::format(
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
      comparison_.speed.push_back(std::move(speed));
    }
  }

  // The text of all cells; empty where variants have others.
  nlohmann::json common_corpus() const {
    const Measure* first = nullptr;
    nlohmann::json corpus = nlohmann::json::object();
    for (size_t i = 0; i < cells_.size(); ++i) {
      const Measure& measure = comparison_.cells[i].measure;
      if (measure.train_text.empty()) continue;
      if (first == nullptr) {
        first = &measure;
        corpus = {{"description", trained_[i].corpus}, {"sha256", measure.train_text}};
      } else if (measure.train_text != first->train_text ||
                 measure.valid_text != first->valid_text) {
        return nlohmann::json::object();
      }
    }
    return corpus;
  }

  void save() {
    comparison_.corpus = common_corpus();
    nlohmann::ordered_json document = comparison_document(comparison_);
    document["rows"] = table_rows(make_table(comparison_));
    constexpr auto kMendText = nlohmann::ordered_json::error_handler_t::replace;
    write_file_atomic(options_.out / "compare.json",
                      document.dump(2, ' ', false, kMendText) + "\n");
  }

  const std::vector<GridCell>& cells_;
  const CompareOptions& options_;
  Comparison comparison_;
  std::vector<Trained> trained_;  // beside cells_
};

}  // namespace

void refuse_links(const fs::path& out, const std::vector<GridCell>& cells) {
  const auto refuse = [&](const fs::path& path) {
    refuse_link(out / path, "a file or folder of the comparison itself",
                "nothing is written through links: remove it, or give another --out");
  };
  for (const char* name :
       {".lock", "cells", "configs", "compare.json", "config.toml", "report.html"}) {
    refuse(name);
  }
  for (const GridCell& cell : cells) {
    refuse(fs::path("cells") / cell.folder);
    for (const char* end : {".toml", ".log"}) refuse(fs::path("configs") / (cell.folder + end));
  }
}

std::vector<bool> finished_cells(const fs::path& out, const std::vector<GridCell>& cells) {
  const fs::path file = out / "compare.json";
  if (is_there(file)) static_cast<void>(parse_comparison(read_json(file), file.string()));
  std::vector<bool> finished;
  for (const GridCell& cell : cells) {
    const fs::path folder = out / "cells" / cell.folder;
    check_run_format(RunPaths{folder});
    bool is_finished = false;
    try {
      if (is_run_folder(folder)) {
        const RunData run = read_run(folder);
        is_finished = run.status == "finished" && run.val_loss;
      }
    } catch (const UserError&) {  // run_comparison says so
    }
    finished.push_back(is_finished);
  }
  return finished;
}

CompareOutcome run_comparison(const Config& config, const std::vector<GridCell>& cells,
                              const CompareOptions& options) {
  Run run(config, cells, options);
  if (options.begin) options.begin();
  return run.run();
}

}  // namespace wavroute
