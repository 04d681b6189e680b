// Steps on a back end with ops::DeviceSteps. Learning rate, number of the update and batch are
// values on the device, and so are the results until the host reads them, a step later.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/device_steps.h"
#include "train/stepper.h"

namespace wavroute {

class RecordedStepper final : public Stepper {
 public:
  RecordedStepper(Decoder& model, AdamW& optimizer, const TrainStepPlan& plan);

  [[nodiscard]] int64_t most_under_way() const override { return kSlots; }
  void start(const Batch& batch, const Pass& pass, double lr) override;
  [[nodiscard]] TrainStepResult finish() override;
  [[nodiscard]] std::string take_trouble() override { return std::exchange(trouble_, {}); }

  // For tests: how many recordings there are.
  [[nodiscard]] int64_t recordings() const { return static_cast<int64_t>(recordings_.size()); }

 private:
  static constexpr int64_t kSlots = 2;
  // The host's side of a step that is under way.
  struct Slot {
    std::unique_ptr<ops::Mailbox> inputs, targets, numbers, result;
    int64_t update = 0;
  };

  void make_memory(const Batch& batch);
  // All of a step, in the memory of step_ and inputs_.
  void run(const Pass& pass);
  // Runs it; from its second time on by a recording.
  void run_recorded(const Pass& pass);
  // What a step depends on besides its numbers and its batch: the layers that run, and what
  // training's progress makes of the scheme's options.
  using Kind = std::pair<std::vector<int64_t>, Options>;
  [[nodiscard]] Kind kind_of(const Pass& pass) const;

  Decoder& model_;
  AdamW& optimizer_;
  TrainStepPlan plan_;
  ops::DeviceSteps& steps_;
  ops::StepMemory step_;
  at::Tensor inputs_, targets_;  // [rows, T] on the device
  std::array<Slot, kSlots> slots_;
  std::map<Kind, std::unique_ptr<ops::Recording>> recordings_;  // null: met once
  bool records_ = true;
  std::string trouble_;
  int64_t started_ = 0, finished_ = 0;
};

}  // namespace wavroute
