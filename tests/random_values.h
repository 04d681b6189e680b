// Random tensors for tests.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "base/philox.h"

namespace wavroute::testing {

// Normal numbers in double, the same for the same name; a float holds them exactly where `type` is
// one, and so does a bfloat16.
inline at::Tensor random_values(const std::vector<int64_t>& sizes, const std::string& name,
                                at::ScalarType type = at::kFloat) {
  const Philox random(11, "values", name);
  at::Tensor values = at::empty(sizes, at::kDouble);
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.mutable_data_ptr<double>()[i] = random.normal(static_cast<uint64_t>(i));
  }
  return values.to(type).to(at::kDouble);
}

}  // namespace wavroute::testing
