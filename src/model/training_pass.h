// Forward and backward of one micro-batch, calling the residual stream's operations explicitly.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "wavroute/decoder.h"

namespace wavroute {

struct PassResult {
  double loss_sum = 0.0;    // cross-entropy, nats, summed over the scored tokens
  double auxiliary = 0.0;   // the scheme's own term, mean over tokens
  double mean_depth = 0.0;  // layers per token; 0 where the scheme has no such number
};

struct PassOptions {
  Pass pass;
  Recompute recompute = Recompute::kNone;
  double loss_weight = 1.0;
  double auxiliary_weight = 1.0;
  const LayerProgram* program = nullptr;  // null: the layers that the scheme runs; else kNone only
  at::Tensor* logits = nullptr;           // receives the logits [B,T,V]
  // [3] double on the device: the sums of PassResult are added to it, the last two times
  // auxiliary_weight, and not returned: the host waits for nothing. For back ends with steps().
  at::Tensor sums;
  // Called in the backward once the gradients of a stored layer's sublayers, or of the head's
  // matrix (kHead), are those of this pass; the ones of norms and of the scheme may still change.
  static constexpr int64_t kHead = -1;
  std::function<void(int64_t)> on_final = nullptr;
};

// Runs one micro-batch and adds to the gradients of model's parameters:
//   d( loss_weight * sum of cross-entropy + auxiliary_weight * auxiliary ) / d parameter.
// ids, targets [B,T] int64 on the model's device; a target of -100 is not scored.
[[nodiscard]] PassResult training_pass(Decoder& model, const at::Tensor& ids,
                                       const at::Tensor& targets, const PassOptions& options);

// The layers that this pass executes without a program.
[[nodiscard]] std::vector<int64_t> executed_layers(const Decoder& model, const Pass& pass);

}  // namespace wavroute
