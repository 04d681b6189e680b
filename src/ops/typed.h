// From tensors to the kernels' pointers.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/kernels.h"

namespace wavroute::ops {

// Null for an undefined tensor. The tensor is of the type; consecutive numbers of its last
// dimension are adjacent.
template <typename T>
[[nodiscard]] const T* in(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <typename T>
[[nodiscard]] T* out(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

// Its rows of the last dimension, one after the other at one distance; a single row of one
// dimension. No grid for an undefined tensor.
template <typename T>
[[nodiscard]] kernels::Grid<const T> rows_in(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {in<T>(tensor), tensor.dim() > 1 ? tensor.stride(-2) : tensor.numel()};
}
template <typename T>
[[nodiscard]] kernels::Grid<T> rows_out(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {out<T>(tensor), tensor.dim() > 1 ? tensor.stride(-2) : tensor.numel()};
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
  PartialSums(class Memory& memory, int64_t chunks, int64_t count, bool wanted = true);
  [[nodiscard]] float* of(int64_t chunk) const {
    return values_.defined() ? out<float>(values_) + chunk * count_ : nullptr;
  }
  // target[i] += the sum over the chunks.
  void add_to(float* target) const;
  // The same for a float tensor of `count` numbers, contiguous.
  void add_to(const at::Tensor& target) const { add_to(out<float>(target)); }
  // The sums themselves.
  [[nodiscard]] std::vector<float> total() const;

 private:
  int64_t chunks_, count_;
  at::Tensor values_;
};

}  // namespace wavroute::ops
