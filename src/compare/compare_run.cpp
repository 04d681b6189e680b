#include "compare/compare_run.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/utc.h"
#include "bench/machine.h"
#include "bench/step_bench.h"
#include "compare/child.h"
#include "config/print.h"
#include "io/file.h"
#include "report/run_data.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

// What the speed measurement wants to know of a cell that was trained.
struct Trained {
  std::optional<int64_t> vocab_size;
  uint64_t peak_bytes = 0;
};

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
      read_summary(comparison_.cells.size() - 1);
    }
  }

  CompareOutcome run() {
    make_folders(options_.out / "configs");
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (options_.stop()) return {comparison_, false};
      train(i);
      save();
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
  fs::path folder(size_t i) const { return options_.out / comparison_.cells[i].run; }

  // Speeds of an earlier call stand until they are measured again.
  void read_speed() {
    const fs::path file = options_.out / "compare.json";
    if (fs::exists(file)) comparison_.speed = parse_comparison(read_json(file), file).speed;
  }

  // A finished cell counts only for the configuration that it was trained with.
  void refuse_other_configuration(size_t i) const {
    if (!fs::exists(config_path(i)) || read_file(config_path(i)) == to_toml(cells_[i].config)) {
      return;
    }
    throw UserError(fmt::format("cell {} was trained with another configuration than the one given "
                                "now, see {}",
                                cells_[i].folder, config_path(i).string()),
                    "give the variant a new label, or another --out");
  }

  // Losses of cells are paired only if they come from the same text.
  void refuse_other_text(size_t i, const nlohmann::json& summary) {
    const auto same_source = [&](const DataConfig& a, const DataConfig& b) {
      return a.train == b.train && a.valid == b.valid && a.max_bytes == b.max_bytes;
    };
    if (!same_source(cells_[i].config.data, cells_[0].config.data)) return;
    const std::string text =
        text_at(summary, "corpus_sha256") + " " + text_at(summary, "corpus_valid_sha256");
    if (!text_.empty() && text != text_) {
      throw UserError(
          fmt::format("all cells must see the same text: sha256 {} was expected, {} was "
                      "given by cell {}",
                      text_, text, cells_[i].folder),
          "the text has changed since the first cells were trained: give another --out");
    }
    text_ = text;
    comparison_.corpus = {{"description", text_at(summary, "corpus")},
                          {"sha256", text_at(summary, "corpus_sha256")}};
  }

  // What the cell's run folder says of it.
  void read_summary(size_t i) {
    Cell& cell = comparison_.cells[i];
    const fs::path file = folder(i) / "summary.json";
    if (!fs::exists(file)) return;
    refuse_other_configuration(i);
    const nlohmann::json summary = read_json(file);
    const std::string status = text_at(summary, "status");
    cell.status = status == "diverged"   ? CellStatus::kDiverged
                  : status == "finished" ? CellStatus::kFinished
                                         : CellStatus::kPending;
    refuse_other_text(i, summary);
    cell.val_loss = number_at(summary, "val_loss");
    cell.bits_per_byte = number_at(summary, "bits_per_byte");
    cell.parameters = number_at(summary, "parameters");
    cell.flops_per_token = number_at(summary, "flops_per_token");
    trained_[i] = {integer_at(summary, "vocab_size"),
                   static_cast<uint64_t>(number_at(summary, "peak_rss_bytes").value_or(0.0))};
  }

  void train(size_t i) {
    Cell& cell = comparison_.cells[i];
    const std::string place = fmt::format("[{}/{}] {} ", i + 1, cells_.size(), cells_[i].folder);
    if (cell.status == CellStatus::kFinished) {
      options_.say(fmt::format("{} is there: loss {:.4f}", place, cell.val_loss.value_or(0.0)));
      return;
    }
    const auto start = std::chrono::steady_clock::now();
    write_file_atomic(config_path(i), to_toml(cells_[i].config));
    make_folders(folder(i));
    const ChildResult child =
        run_child({options_.program, "train", config_path(i).string(), "--out", folder(i).string(),
                   "--resume", "auto", "--planned"},
                  options_.out / "configs" / (cells_[i].folder + ".log"), options_.stop);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    read_summary(i);
    if (child.exit_code == 0 && cell.status == CellStatus::kFinished) {
      options_.say(
          fmt::format("{} loss {:.4f}  {:.0f} s", place, cell.val_loss.value_or(0.0), seconds));
      return;
    }
    if (options_.stop()) return;  // the same signal stopped the child
    if (cell.status != CellStatus::kDiverged) cell.status = CellStatus::kFailed;
    options_.say(fmt::format("{} {} (exit code {}):\n{}", place, to_string(cell.status),
                             child.exit_code, child.error_tail));
  }

  // One job per label and depth, with the seed of its first cell, all steps taken in turn.
  void measure_speed() {
    if (options_.speed_rounds == 0) return;
    std::vector<StepJob> jobs;
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
      StepJob job;
      job.label = fmt::format("{} L{}", cell.label, *cell.depth);
      job.provider = "wavroute";
      job.scheme = cell.scheme;
      job.argv = {options_.program, "bench",
                  "worker",         (folder(i) / "config.toml").string(),
                  "--vocab",        std::to_string(*trained_[i].vocab_size)};
      job.estimate_bytes = trained_[i].peak_bytes;
      jobs.push_back(std::move(job));
      of.push_back(i);
    }
    if (jobs.empty()) return;
    options_.say(fmt::format("measuring speed: {} models, their steps in turn", jobs.size()));
    StepPlan plan;
    plan.rounds = options_.speed_rounds;
    plan.memory_limit = options_.memory_limit;
    const std::vector<StepResult> results = measure_steps(jobs, plan);
    if (options_.stop()) return;  // the same signal stopped the workers
    comparison_.speed.clear();
    for (size_t j = 0; j < results.size(); ++j) {
      const StepResult& result = results[j];
      if (!result.ok()) {
        options_.say(fmt::format("no speed of {}: {}", result.label, result.error));
        continue;
      }
      const Cell& cell = comparison_.cells[of[j]];
      if (static_cast<double>(result.parameters) != cell.parameters) {
        options_.say(fmt::format("no speed of {}: {} parameters were trained, {} were timed",
                                 result.label, cell.parameters.value_or(0.0), result.parameters));
        continue;
      }
      Speed speed;
      speed.label = cell.label;
      speed.depth = cell.depth;
      speed.tokens_per_s = result.tokens_per_s;
      speed.ms_p50 = result.ms_p50;
      speed.peak_rss_bytes = static_cast<double>(result.peak_rss_bytes);
      comparison_.speed.push_back(std::move(speed));
    }
  }

  void save() const {
    write_file_atomic(options_.out / "compare.json",
                      comparison_document(comparison_).dump(2) + "\n");
  }

  const std::vector<GridCell>& cells_;
  const CompareOptions& options_;
  Comparison comparison_;
  std::string text_;              // sha256 of both splits, of the first cell
  std::vector<Trained> trained_;  // beside cells_
};

}  // namespace

CompareOutcome run_comparison(const Config& config, const std::vector<GridCell>& cells,
                              const CompareOptions& options) {
  return Run(config, cells, options).run();
}

}  // namespace wavroute
