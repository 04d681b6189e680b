// From tensors to the kernels' pointers.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/kernels.h"

namespace wavroute::ops {

// Null for an undefined tensor. The tensor is contiguous and of the type.
template <typename T>
[[nodiscard]] const T* in(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <typename T>
[[nodiscard]] T* out(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

// Calls body.template operator()<C>() with the kernels' type for `type`, float or bfloat16.
template <typename Body>
void with_type(at::ScalarType type, const Body& body) {
  if (type == at::kFloat) {
    body.template operator()<float>();
  } else {
    TORCH_CHECK(type == at::kBFloat16, "expected float or bfloat16, got ", type);
    body.template operator()<kernels::Bf16>();
  }
}

// Sums over tokens, one partial sum [count] per chunk of tokens, added up in their order.
class PartialSums {
 public:
  // Zeros [chunks, count] where `wanted`, else nothing.
  PartialSums(class Arena& arena, int64_t chunks, int64_t count, bool wanted = true);
  // The same with memory from the system, for a caller that has no step to keep it for.
  PartialSums(int64_t chunks, int64_t count, bool wanted = true);
  [[nodiscard]] float* of(int64_t chunk) const {
    return values_.defined() ? out<float>(values_) + chunk * count_ : nullptr;
  }
  // target[i] += the sum over the chunks.
  void add_to(float* target) const;
  // The sums themselves.
  [[nodiscard]] std::vector<float> total() const;
  [[nodiscard]] at::Tensor total(at::IntArrayRef sizes) const;

 private:
  int64_t chunks_, count_;
  at::Tensor values_;
};

}  // namespace wavroute::ops
