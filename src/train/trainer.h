// The training loop of one run folder.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

#include "data/batches.h"
#include "io/run_folder.h"
#include "train/checkpointing.h"
#include "train/console.h"
#include "train/evaluation.h"
#include "train/gradient_sum.h"
#include "train/processes.h"
#include "train/schedule.h"
#include "train/session.h"
#include "train/sinks.h"
#include "train/step.h"
#include "train/stepper.h"

namespace wavroute {

class Trainer {
 public:
  // The folder is locked by the caller and holds config.toml. Session, console and processes
  // outlive this. Of several processes, each makes a Trainer and calls the same functions; the
  // first one alone reads and writes the folder, and has the lock.
  Trainer(Session& session, const RunPaths& paths, Console& console,
          Processes& processes = single_process(), Optimizer optimizer = Optimizer::kWhole);

  // Continues from a checkpoint of this run: loads it, sets later ones aside, removes those beyond
  // train.keep, and cuts metrics.jsonl to its step. UserError where the run started from other
  // weights than `init_sha256` (nothing: the configuration names the same train.init as before).
  void resume(const std::filesystem::path& checkpoint,
              const std::optional<std::string>& init_sha256 = std::nullopt);
  // Begins at step 0 where the folder may hold a run: sets its checkpoints and its metrics.jsonl
  // aside.
  void begin();

  [[nodiscard]] int64_t steps_done() const { return state_.progress.step; }

  // Trains to the last step. False: a signal stopped it; a checkpoint was written. Throws Failure
  // if a loss, the gradient norm (before the update) or a value that a checkpoint would hold is not
  // finite.
  [[nodiscard]] bool run();

 private:
  struct Interval {
    double loss = 0.0, seconds = 0.0;  // summed over the steps
    int64_t steps = 0;
    void add(double step_loss, double step_seconds) {
      loss += step_loss;
      seconds += step_seconds;
      steps += 1;
    }
  };

  // The part of resume() that the first process does.
  void read_checkpoint(const std::filesystem::path& checkpoint,
                       const std::optional<std::string>& init_sha256);
  // Parameters, moments and progress of the first process for all.
  void share_state(bool has_moments);
  // Whether training stops before its last step, in all processes alike.
  [[nodiscard]] bool is_stopped() const;
  void announce() const;
  void train(JsonlWriter& metrics);
  void start_step();
  // Waits for the earliest step that is under way.
  void finish_step(JsonlWriter& metrics);
  [[nodiscard]] double learning_rate(int64_t step) const;
  // The row of metrics.jsonl of the step that has just been done.
  [[nodiscard]] nlohmann::ordered_json step_row(const TrainStepResult& result, double lr,
                                                double seconds) const;
  // The row of the layers' sizes, where it is time for one.
  void log_layers(JsonlWriter& metrics);
  void evaluate(JsonlWriter& metrics);
  // Writes what the run can do without: failures cost a warning.
  void side_file(const std::filesystem::path& path, const std::function<void()>& write);
  void save(JsonlWriter& metrics);
  void write_checkpoint(JsonlWriter& metrics, const AdamW& optimizer);
  void report_interval(const TrainStepResult& result, double lr);
  [[nodiscard]] double seconds_left() const;
  [[nodiscard]] SchedulePlan schedule_plan() const;
  [[noreturn]] void stop_at(const TrainStepResult& result);
  [[noreturn]] void stop_diverged(const std::string& what, const std::string& consequence);
  void set_status(std::string_view status);  // in summary.json
  void try_status(std::string_view status);  // the same; trouble costs a warning
  // The same with kRunning; an Error where the folder would go on saying that the run is finished.
  void say_running();
  [[nodiscard]] OnSkippedCheckpoint on_left() const;  // warns of what can't be removed

  Session& session_;
  const Config& config_;
  RunPaths paths_;
  Console& console_;
  Processes& processes_;
  std::unique_ptr<GradientSum> sum_;  // of several processes
  AdamW optimizer_;
  // Moments from a checkpoint on their way to the processes that have shares of them.
  struct Moments {
    std::vector<at::Tensor> first, second;
  } read_;
  Share rows_;  // of every batch, that this process takes
  TrainingBatches batches_;
  EvalWindows windows_;
  TrainStepPlan plan_;
  RunState state_;
  std::unique_ptr<Stepper> stepper_;
  bool stop_asked_ = false;                      // of any process, by a signal
  int64_t started_ = 0;                          // steps, the finished ones included
  std::chrono::steady_clock::time_point since_;  // when the next step to finish was started
  double peak_flops_ = 0.0;
  Interval interval_;
  Interval total_;                    // of this process, for the time left and the summary
  std::optional<SinkProcess> sinks_;  // while it trains
  std::optional<double> last_val_loss_, last_bits_per_byte_;
  int64_t evaluated_step_ = -1, saved_step_ = -1;
  std::string_view status_;  // the last one that this process wrote to summary.json
};

}  // namespace wavroute
