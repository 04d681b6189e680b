#include "train/batch.h"

#include <ATen/ATen.h>

namespace wavroute {
namespace {

std::span<int64_t> ids_of(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<int64_t>(), static_cast<size_t>(tensor.numel())};
}

}  // namespace

Batch Batch::empty(int64_t rows, int64_t context) {
  const at::Tensor inputs = at::empty({rows, context}, at::kLong);
  return {inputs, at::empty_like(inputs)};
}

Batch Batch::slice(int64_t begin, int64_t end) const {
  return {inputs.slice(0, begin, end), targets.slice(0, begin, end)};
}

std::span<int64_t> Batch::input_ids() const { return ids_of(inputs); }

std::span<int64_t> Batch::target_ids() const { return ids_of(targets); }

Batch batch_of(const TrainingBatches& batches, int64_t step) {
  Batch batch = Batch::empty(batches.batch(), batches.context());
  batches.fill(step, batch.input_ids(), batch.target_ids());
  return batch;
}

Batch batch_of(const EvalWindows& windows, int64_t begin, int64_t end) {
  Batch batch = Batch::empty(end - begin, windows.context());
  windows.fill(begin, end, batch.input_ids(), batch.target_ids());
  return batch;
}

}  // namespace wavroute
