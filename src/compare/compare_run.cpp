#include "compare/compare_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/machine.h"
#include "base/utc.h"
#include "compare/cell_checks.h"
#include "compare/child.h"
#include "compare/rates.h"
#include "compare/result_files.h"
#include "compare/speeds.h"
#include "config/print.h"
#include "io/file.h"
#include "io/json_text.h"
#include "report/run_data.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

std::string loss_text(const std::optional<double>& loss) {
  return loss ? fmt::format("loss {:.4f}", *loss) : "no loss";
}

// How a training process ended: well where `trouble` is empty.
struct TrainEnd {
  std::string trouble;
  bool is_elsewhere = false;  // another process has the cell's folder
};

class Run {
 public:
  Run(const Config& config, const std::vector<GridCell>& cells, const CompareOptions& options)
      : cells_(cells), options_(options), progress_(cells.size()), trained_(cells.size()) {
    comparison_.name = config.name;
    comparison_.created = utc_now();
    comparison_.last = config.compare.last;
    comparison_.target_loss = config.compare.target_loss;
    const Machine machine = probe_machine();
    comparison_.machine = {{"cpu", machine.cpu_model},
                           {"cores", machine.cores},
                           {"memory_bytes", machine.memory_total}};
    read_speed();
    for (const GridCell& plan : cells_) comparison_.cells.push_back(planned_cell(plan));
    for (const bool waits : {false, true}) {  // those on whose results others rest first
      for (size_t i = 0; i < cells_.size(); ++i) {
        if (cells_[i].needs.empty() != waits) take_old_result(i);
      }
    }
  }

  CompareOutcome run() {
    make_folders(options_.out / "configs");
    train_all();
    if (!options_.stop()) {
      measure_speed();
      save(/*is_end=*/true);
    }
    return {settled(), !options_.stop()};
  }

  Cell run_one(size_t i) {
    if (const auto open = open_needs(i); !open.empty()) {
      throw expected("the cells that decide its learning rate to have ended",
                     fmt::format("unfinished {}", fmt::join(open, ", ")),
                     "for cell " + cells_[i].folder, "run those first: --list-cells has them");
    }
    make_folders(options_.out / "configs");
    train(i);
    return comparison_.cells[i];
  }

 private:
  enum class Progress { kWaiting, kTraining, kEnded };

  static Cell planned_cell(const GridCell& plan) {
    Cell cell;
    cell.label = plan.label;
    cell.scheme = plan.config.residual.scheme;
    cell.depth = plan.config.model.layers;
    cell.seed = plan.config.train.seed;
    cell.run = fs::path("cells") / plan.folder;
    cell.role = plan.role;
    cell.budget = plan.budget;
    cell.wider_for = plan.wider_for;
    if (plan.needs.empty()) cell.lr = plan.config.optimizer.lr;
    return cell;
  }

  CellPaths paths_of(size_t i) const { return {options_.out, cells_[i]}; }

  // Several threads say what they do.
  void say(const std::string& line) {
    const std::scoped_lock lock(saying_);
    options_.say(line);
  }

  // Speeds of an earlier call are kept until they are measured again.
  void read_speed() {
    const fs::path file = options_.out / "compare.json";
    if (fs::exists(file)) {
      comparison_.speed = parse_comparison(read_json(file), file.string()).speed;
    }
  }

  // A cell that an earlier call trained, if one did. What can't be read is trained again.
  void take_old_result(size_t i) {
    const CellPaths paths = paths_of(i);
    if (!fs::exists(paths.folder / "summary.json")) return;
    const bool is_settled = open_needs(i).empty() && settle_rate(i);
    if (is_settled) refuse_other_configuration(paths, cells_[i]);
    try {
      read_run_of(i);
    } catch (const UserError& error) {
      say(fmt::format("{} can't be read, and is resumed: {}", cells_[i].folder, error.what()));
      return;
    }
    refuse_other_text(cells_[i], comparison_.cells[i].measure);
    if (is_settled) refuse_other_run(paths, cells_[i], comparison_.cells[i].settings);
  }

  // The cell's state by its run folder.
  void read_run_of(size_t i) {
    const RunData run = read_run(paths_of(i).folder);
    Cell& cell = comparison_.cells[i];
    take_run(cell, run, comparison_.last);
    if (cell.status == CellStatus::kFinished && !cell.val_loss) cell.status = CellStatus::kFailed;
    trained_[i] = {integer_at(run.summary, "vocab_size"),
                   static_cast<uint64_t>(std::clamp(run.peak_rss_bytes.value_or(0.0), 0.0, 1e18)),
                   text_at(run.summary, "corpus")};
  }

  // The cells that cell i waits for and that have no end yet, by their folders.
  std::vector<std::string> open_needs(size_t i) const {
    std::vector<std::string> open;
    for (const size_t need : cells_[i].needs) {
      if (!has_ended(comparison_.cells[need])) open.push_back(cells_[need].folder);
    }
    return open;
  }

  // Gives cell i the best of the rates that it waited for. False where none of them has a loss.
  bool settle_rate(size_t i) {
    if (cells_[i].needs.empty()) return true;
    const auto best = best_rate(comparison_.cells, cells_[i].needs);
    if (!best) return false;
    cells_[i].config.optimizer.lr = cells_[*best].config.optimizer.lr;
    comparison_.cells[i].lr = cells_[i].config.optimizer.lr;
    return true;
  }

  // Each job takes the next cell that can start, until none is left.
  void train_all() {
    const auto work = [this] {
      while (const auto i = next_cell()) {
        train(*i);
        {
          const std::scoped_lock lock(mutex_);
          progress_[*i] = Progress::kEnded;
        }
        changed_.notify_all();
        try {
          save(/*is_end=*/false);
        } catch (const std::exception& error) {  // the save at the end must succeed
          say(fmt::format("compare.json: {}", error.what()));
        }
      }
    };
    const auto jobs = static_cast<size_t>(std::max<int64_t>(1, options_.jobs));
    std::vector<std::jthread> others;
    for (size_t i = 1; i < std::min(jobs, cells_.size()); ++i) others.emplace_back(work);
    work();
  }

  // Waits until a cell can start. Nothing: all have started, or the comparison is stopped.
  std::optional<size_t> next_cell() {
    constexpr std::chrono::milliseconds kLook(100);  // at options_.stop
    std::unique_lock lock(mutex_);
    while (!options_.stop()) {
      bool any_waits = false;
      for (size_t i = 0; i < cells_.size(); ++i) {
        if (progress_[i] != Progress::kWaiting) continue;
        any_waits = true;
        const bool is_ready = std::ranges::all_of(
            cells_[i].needs, [&](size_t need) { return progress_[need] == Progress::kEnded; });
        if (!is_ready) continue;
        progress_[i] = Progress::kTraining;
        return i;
      }
      if (!any_waits) return std::nullopt;
      changed_.wait_for(lock, kLook);
    }
    return std::nullopt;
  }

  // Trains one cell. Whatever goes wrong with it is reported and marked.
  void train(size_t i) {
    const std::string place = fmt::format("[{}/{}] {} ", i + 1, cells_.size(), cells_[i].folder);
    if (!prepare(i, place)) return;
    const auto start = std::chrono::steady_clock::now();
    TrainEnd end;
    try {
      end = train_child(i);
    } catch (const std::exception& error) {
      end.trouble = error.what();
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const std::scoped_lock lock(mutex_);
    Cell& cell = comparison_.cells[i];
    if (end.is_elsewhere) {
      cell.status = CellStatus::kRunning;
      say(fmt::format("{} is left to the process that trains it", place));
      return;
    }
    if (end.trouble.empty() && cell.status == CellStatus::kFinished) {
      say(fmt::format("{} {}  {:.0f} s", place, loss_text(cell.val_loss), seconds));
      return;
    }
    if (options_.stop()) return;  // the same signal stopped the child
    if (cell.status != CellStatus::kDiverged) cell.status = CellStatus::kFailed;
    if (end.trouble.empty()) end.trouble = "it ended without a finite validation loss";
    say(fmt::format("{} {}: {}", place, to_string(cell.status), end.trouble));
  }

  // What a cell needs before it is trained. False where it isn't: it is there, or can't be.
  bool prepare(size_t i, const std::string& place) {
    const std::scoped_lock lock(mutex_);
    Cell& cell = comparison_.cells[i];
    std::string trouble;
    if (!settle_rate(i)) {
      cell.status =
          std::ranges::all_of(
              cells_[i].needs,
              [&](size_t need) { return comparison_.cells[need].status == CellStatus::kDiverged; })
              ? CellStatus::kDiverged
              : CellStatus::kFailed;
      trouble = "none of its learning rates has a loss";
    } else if (cell.status == CellStatus::kFinished) {
      try {  // the rate may be another by now
        refuse_other_configuration(paths_of(i), cells_[i]);
        say(fmt::format("{} is there: {}", place, loss_text(cell.val_loss)));
        return false;
      } catch (const UserError& error) {
        cell.status = CellStatus::kFailed;
        trouble = fmt::format("{} ({})", error.what(), error.hint());
      }
    }
    if (trouble.empty()) {
      cell.status = CellStatus::kPending;
      return true;
    }
    say(fmt::format("{} {}: {}", place, to_string(cell.status), trouble));
    return false;
  }

  TrainEnd train_child(size_t i) {
    const CellPaths paths = paths_of(i);
    make_folders(paths.folder);
    if (!wait_until_free(paths.folder, options_.stop)) return {{}, !options_.stop()};
    write_file_atomic(paths.config, to_toml(cells_[i].config));
    const ChildResult child = run_child({options_.program, "train", paths.config.string(), "--out",
                                         paths.folder.string(), "--resume", "auto", "--planned"},
                                        paths.log, options_.stop);
    const std::scoped_lock lock(mutex_);
    if (is_run_folder(paths.folder)) read_run_of(i);
    if (child.exit_code != 0) {
      return {fmt::format("exit code {}\n{}", child.exit_code, child.error_tail)};
    }
    refuse_other_text(cells_[i], comparison_.cells[i].measure);
    return {};
  }

  void measure_speed() {
    if (!options_.measure_speed) return;
    Comparison comparison = settled();
    measure_speeds(comparison, trained_, options_);
    comparison_.speed = std::move(comparison.speed);
  }

  // The comparison as it stands. A row with one seed alone reports the seed on which its learning
  // rate was chosen.
  Comparison settled() const {
    Comparison comparison = comparison_;
    promote_rates(comparison.cells);
    return comparison;
  }

  void save(bool is_end) {
    const std::scoped_lock lock(mutex_);
    Comparison comparison = settled();
    comparison.corpus = common_corpus();
    write_results(comparison, options_.out, is_end, [this](const std::string& line) { say(line); });
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

  std::vector<GridCell> cells_;  // with the learning rates that were chosen
  const CompareOptions& options_;
  Comparison comparison_;
  std::vector<Progress> progress_;  // beside cells_
  std::vector<Trained> trained_;    // beside cells_
  std::mutex mutex_, saying_;       // of all that is above; of options_.say
  std::condition_variable changed_;
};

}  // namespace

CompareOutcome run_comparison(const Config& config, const std::vector<GridCell>& cells,
                              const CompareOptions& options) {
  Run run(config, cells, options);
  if (options.begin) options.begin();
  return run.run();
}

Cell train_one_cell(const Config& config, const std::vector<GridCell>& cells, size_t index,
                    const CompareOptions& options) {
  Run run(config, cells, options);
  return run.run_one(index);
}

}  // namespace wavroute
