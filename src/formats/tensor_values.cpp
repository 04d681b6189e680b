#include "formats/tensor_values.h"

#include <algorithm>
#include <cstring>

#include "io/half.h"
#include "io/mapped_pages.h"

namespace wavroute {

bool is_floating(Dtype type) {
  return type == Dtype::kF32 || type == Dtype::kF16 || type == Dtype::kBF16 || type == Dtype::kF64;
}

void to_floats(const TensorInfo& tensor, std::span<float> out) {
  const std::byte* at = tensor.bytes.data();
  const auto take = [&]<typename T>(size_t i, T value) {
    std::memcpy(&value, at + i * sizeof value, sizeof value);
    return value;
  };
  if (tensor.dtype == Dtype::kF32) {
    std::memcpy(out.data(), at, out.size_bytes());
    release_pages(tensor.bytes);
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = tensor.dtype == Dtype::kBF16  ? bf16_to_float(take(i, uint16_t{}))
             : tensor.dtype == Dtype::kF16 ? half_to_float(take(i, uint16_t{}))
                                           : static_cast<float>(take(i, double{}));
  }
  release_pages(tensor.bytes);
}

void from_floats(std::span<const float> values, Dtype type, std::span<std::byte> out) {
  if (type == Dtype::kF32) {
    std::ranges::copy(std::as_bytes(values), out.begin());
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = type == Dtype::kF16 ? float_to_half(values[i]) : float_to_bf16(values[i]);
    std::memcpy(out.data() + i * sizeof bits, &bits, sizeof bits);
  }
}

}  // namespace wavroute
