// The training loop of one run folder.
#pragma once

#include <filesystem>
#include <optional>

#include "data/batches.h"
#include "io/run_folder.h"
#include "train/checkpointing.h"
#include "train/console.h"
#include "train/evaluation.h"
#include "train/session.h"
#include "train/step.h"

namespace wavroute {

class Trainer {
 public:
  // The folder is locked by the caller and holds config.toml. Session and console outlive this.
  Trainer(Session& session, const RunPaths& paths, Console& console);

  // Continues from a checkpoint of this run: loads it and cuts metrics.jsonl to its step.
  void resume(const std::filesystem::path& checkpoint);

  // Trains to the last step. False: a signal stopped it; a checkpoint was written. Throws Failure
  // where the loss or the gradient norm is not finite, before the update.
  [[nodiscard]] bool run();

 private:
  struct Interval {
    double loss = 0.0, seconds = 0.0;
    int64_t steps = 0;
  };

  void announce() const;
  void step(JsonlWriter& metrics);
  void evaluate(JsonlWriter& metrics);
  void write_sample() const;
  void save(JsonlWriter& metrics);
  void report_interval(const TrainStepResult& result, double lr);
  [[nodiscard]] double seconds_left() const;
  [[noreturn]] void stop_diverged(const TrainStepResult& result);
  void write_summary(const std::string& status) const;

  Session& session_;
  const Config& config_;
  RunPaths paths_;
  Console& console_;
  AdamW optimizer_;
  TrainingBatches batches_;
  EvalWindows windows_;
  TrainStepPlan plan_;
  RunState state_;
  double peak_flops_ = 0.0;
  Interval interval_;
  Interval total_;  // of this process, for the time left and the summary
  std::optional<double> last_val_loss_, last_bits_per_byte_;
  int64_t evaluated_step_ = -1, saved_step_ = -1;
};

}  // namespace wavroute
