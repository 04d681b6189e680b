// The rotations of a model's positions, for the length in use: a model may declare millions of
// positions and get a few.
#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <vector>

#include "ops/attention.h"

namespace wavroute::ops {

class RopeRows {
 public:
  // frequency [w/2] double and scale: rope_table's; of the type and on the device of `options`.
  RopeRows(at::Tensor frequency, double scale, const at::TensorOptions& options);

  // Of positions first .. first + length - 1, views of a table that at least doubles when it grows.
  // From any thread.
  [[nodiscard]] RopeTable of(int64_t first, int64_t length);

 private:
  at::Tensor frequency_;
  double scale_;
  at::TensorOptions options_;
  std::mutex mutex_;
  std::vector<RopeTable> tables_;  // the last one is used; recorded passes use those before it
};

}  // namespace wavroute::ops
