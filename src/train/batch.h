// Token ids on their way from the text to a pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "data/batches.h"

namespace wavroute {

// Sequences and what follows each of their tokens: int64 [rows, T], on the CPU.
struct Batch {
  at::Tensor inputs, targets;

  // Room for ids that are still to be written.
  static Batch empty(int64_t rows, int64_t context);

  [[nodiscard]] int64_t rows() const { return inputs.size(0); }
  [[nodiscard]] int64_t context() const { return inputs.size(1); }
  // The rows [begin, end), in the same memory.
  [[nodiscard]] Batch slice(int64_t begin, int64_t end) const;
  [[nodiscard]] std::span<int64_t> input_ids() const;
  [[nodiscard]] std::span<int64_t> target_ids() const;
};

// All rows of a training step.
[[nodiscard]] Batch batch_of(const TrainingBatches& batches, int64_t step);
// The windows [begin, end) of an evaluation.
[[nodiscard]] Batch batch_of(const EvalWindows& windows, int64_t begin, int64_t end);

}  // namespace wavroute
