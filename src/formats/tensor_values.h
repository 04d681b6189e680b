// The numbers of a safetensors file's tensors, as fp32 and back.
#pragma once

#include <cstddef>
#include <span>

#include "wavroute/safetensors.h"

namespace wavroute {

// F32, F16, BF16, F64.
[[nodiscard]] bool is_floating(Dtype type);
// `out`: as many numbers as the tensor has, whose type is floating.
void to_floats(const TensorInfo& tensor, std::span<float> out);
// In F32, F16 or BF16, to the nearest; `out` has their bytes.
void from_floats(std::span<const float> values, Dtype type, std::span<std::byte> out);

}  // namespace wavroute
