// Decoding on a back end with ops::DeviceSteps: the pass of one token of each sequence is recorded
// once (a CUDA graph) and started again for every later token. Ids and positions are values on the
// device, and the lengths that attention takes follow from them there.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "ops/device_steps.h"
#include "wavroute/decoder.h"

namespace wavroute {

class RecordedTokens {
 public:
  // What such a pass depends on besides ids and positions.
  struct Kind {
    int64_t batch = 0;
    std::vector<int64_t> layers;  // of the program
    int64_t step = 0, steps = 0;  // of training
    const ops::Backend* backend = nullptr;
    [[nodiscard]] bool operator==(const Kind&) const = default;
  };
  RecordedTokens(Kind kind, ops::DeviceSteps& steps, at::Device device);

  [[nodiscard]] const Kind& kind() const { return kind_; }
  // The pass over `ids` [B, 1] with a state that stays the same one. `run` is that pass, of ids on
  // the device; it moves the state's positions on. What can't be recorded runs as it is, and
  // state.trouble says why.
  using Run = std::function<ForwardResult(const at::Tensor& ids)>;
  [[nodiscard]] ForwardResult next(const at::Tensor& ids, InferenceState& state, const Run& run);

  // For tests.
  [[nodiscard]] bool is_recorded() const { return recording_ != nullptr; }

 private:
  void record(InferenceState& state, const Run& run);

  Kind kind_;
  ops::DeviceSteps& steps_;
  at::Tensor inputs_;  // [2, B] on the device: ids, positions
  std::unique_ptr<ops::Mailbox> mailbox_;
  bool has_run_ = false;
  ForwardResult result_;            // in the recording's memory
  std::unique_ptr<Stream> stream_;  // which that works in
  std::unique_ptr<ops::Recording> recording_;
};

}  // namespace wavroute
