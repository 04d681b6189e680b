#include "train/stepper.h"

#include <deque>

#include "train/recorded_stepper.h"

namespace wavroute {
namespace {

class DirectStepper final : public Stepper {
 public:
  DirectStepper(Decoder& model, AdamW& optimizer, const TrainStepPlan& plan)
      : model_(model), optimizer_(optimizer), plan_(plan) {}

  [[nodiscard]] int64_t most_under_way() const override { return 1; }
  void start(const Batch& batch, const Pass& pass, double lr) override {
    result_ = train_step(model_, optimizer_, batch, plan_, pass, lr);
  }
  [[nodiscard]] TrainStepResult finish() override { return result_; }

 private:
  Decoder& model_;
  AdamW& optimizer_;
  TrainStepPlan plan_;
  TrainStepResult result_;
};

}  // namespace

std::unique_ptr<Stepper> make_stepper(Decoder& model, AdamW& optimizer, const TrainStepPlan& plan) {
  // The processes of a training agree on the host, step by step.
  if (model.backend().steps() != nullptr && plan.sum == nullptr) {
    return std::make_unique<RecordedStepper>(model, optimizer, plan);
  }
  return std::make_unique<DirectStepper>(model, optimizer, plan);
}

}  // namespace wavroute
