// Parts of the flat buffers that parameters, gradients and moments lie in.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

namespace wavroute {

// Elements or rows [begin, end).
struct Share {
  int64_t begin = 0, end = 0;
  [[nodiscard]] int64_t count() const { return end - begin; }
  bool operator==(const Share&) const = default;
};

// A part of the buffers of a group of a parameter table.
struct FlatPart {
  size_t group = 0;
  Share range;
  [[nodiscard]] at::Tensor of(const at::Tensor& flat) const {
    return flat.narrow(0, range.begin, range.count());
  }
};

}  // namespace wavroute
