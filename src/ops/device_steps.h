// A training step whose numbers stay on the device: what the host would have to wait for lies in
// tensors there. Such a step can be recorded once and started again.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace wavroute::ops {

struct AdamwBuffers;
struct AdamwNumbers;

// Work of a device that was recorded: it reads and writes the memory that it was recorded with.
class Recording {
 public:
  Recording() = default;
  virtual ~Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  virtual void start() = 0;  // returns before it has been done
};

// Memory of the host beside a tensor of the device. Copies wait for nothing and are made after the
// work that was given to the device before them.
class Mailbox {
 public:
  Mailbox() = default;
  virtual ~Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;
  [[nodiscard]] virtual at::Tensor host() const = 0;
  virtual void send() = 0;   // to the device
  virtual void fetch() = 0;  // from the device
  virtual void wait() = 0;   // until the last copy has been made
};

// What the host gives a step.
struct StepNumbers {
  double lr = 0.0;
  double clip = 0.0;  // the largest norm of the gradients; 0: any
  double beta1 = 0.0, beta2 = 0.0;
  int64_t update = 1;  // from 1, for the bias correction
};
// What it learns of it.
struct StepResult {
  double loss = 0.0, auxiliary = 0.0, mean_depth = 0.0;  // StepMemory::sums
  double grad_norm = 0.0;                                // before clipping
  bool is_finite = false;  // of this step and those before it; false: nothing was updated
};
// A step's memory on the device.
struct StepMemory {
  at::Tensor numbers;  // the bytes of what write_numbers was given
  at::Tensor sums;     // [3] double: loss, auxiliary, mean depth
  at::Tensor squares;  // [groups] double: of the gradients
  at::Tensor update;   // the bytes of what judge() tells adamw()
  at::Tensor result;   // the bytes of what read_result takes
};

class DeviceSteps {
 public:
  DeviceSteps() = default;
  virtual ~DeviceSteps() = default;
  DeviceSteps(const DeviceSteps&) = delete;
  DeviceSteps& operator=(const DeviceSteps&) = delete;

  // Backend::cross_entropy and sum_of_squares, which are added to `sum`, [] double.
  virtual void cross_entropy(at::Tensor logits, const at::Tensor& targets, double weight,
                             at::Tensor sum) = 0;
  virtual void sum_of_squares(const at::Tensor& values, at::Tensor sum) = 0;

  // Of a step with so many groups of gradients, before the first one.
  [[nodiscard]] virtual StepMemory step_memory(int64_t groups) = 0;
  // The norm, the clipping, and whether all is finite; once it was not, no step is.
  virtual void judge(const StepMemory& step) = 0;
  // Backend::adamw as it was judged: nothing if it was not finite. The betas, eps and the decay of
  // `numbers` count.
  virtual void adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers,
                     const StepMemory& step) = 0;

  // StepMemory::numbers and result in memory of the host.
  virtual void write_numbers(const StepNumbers& numbers, at::Tensor to) const = 0;
  [[nodiscard]] virtual StepResult read_result(const at::Tensor& from) const = 0;

  // Gives the device `work`, which must not wait for it, and records it.
  [[nodiscard]] virtual std::unique_ptr<Recording> record(const std::function<void()>& work) = 0;
  [[nodiscard]] virtual std::unique_ptr<Mailbox> mailbox(at::Tensor device) = 0;
};

}  // namespace wavroute::ops
