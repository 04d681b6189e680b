// Training steps that are started one after the other, and whose results come in the same order. A
// back end with ops::DeviceSteps runs a step on its own, from a recording (a CUDA graph), while the
// host prepares the next one; on others a step is done when start() returns.
#pragma once

#include <memory>
#include <string>

#include "train/step.h"

namespace wavroute {

class Stepper {
 public:
  Stepper() = default;
  virtual ~Stepper() = default;
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  // How many steps may be started before the first of them is finished: at least 1.
  [[nodiscard]] virtual int64_t most_under_way() const = 0;
  // Starts a step. Once a step was not finite, no later one updates anything.
  virtual void start(const Batch& batch, const Pass& pass, double lr) = 0;
  // Waits for the earliest step that is under way.
  [[nodiscard]] virtual TrainStepResult finish() = 0;
  // Why steps are not recorded, once; empty: they are, or the back end has nothing to record.
  [[nodiscard]] virtual std::string take_trouble() { return {}; }
};

// Model and optimizer outlive it. Every batch has the same size.
[[nodiscard]] std::unique_ptr<Stepper> make_stepper(Decoder& model, AdamW& optimizer,
                                                    const TrainStepPlan& plan);

}  // namespace wavroute
