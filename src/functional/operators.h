// What the files of the operators share: checks of arguments, the dispatcher, and stand-ins for
// absent tensors.
//
// Every operator has these kernels:
//   Autograd   one node per call where our kernels serve; else the composed form under autograd
//   CPU        our kernels for float and bfloat16, the composed form for other types
//   Meta       shapes and types alone
//   others     the composed form
// and its backward is an operator of its own, so that a compiler sees two opaque calls.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <vector>

namespace wavroute::functional {

using OptionalTensor = std::optional<at::Tensor>;
using Sizes = std::vector<c10::SymInt>;

// Our kernels serve streams in float on the CPU, with updates and norms in float or bfloat16.
[[nodiscard]] inline bool served(const at::Tensor& stream, at::ScalarType compute) {
  return stream.is_cpu() && stream.scalar_type() == at::kFloat &&
         (compute == at::kFloat || compute == at::kBFloat16);
}

// The sizes may be symbols: a compiler traces these checks.
inline void expect_sizes(const char* op, const char* name, const at::Tensor& tensor,
                         const Sizes& sizes) {
  TORCH_CHECK(tensor.sym_sizes().equals(sizes), "[", op, "] expected ", name, " of shape ",
              c10::SymIntArrayRef(sizes), ", got ", tensor.sym_sizes());
}
inline void expect_type(const char* op, const char* name, const at::Tensor& tensor,
                        at::ScalarType type) {
  TORCH_CHECK(tensor.scalar_type() == type, "[", op, "] expected ", name, " of type ", type,
              ", got ", tensor.scalar_type());
}
inline void expect_tensor(const char* op, const char* name, const at::Tensor& tensor,
                          const Sizes& sizes, at::ScalarType type) {
  expect_sizes(op, name, tensor, sizes);
  expect_type(op, name, tensor, type);
}
inline void expect_dimensions(const char* op, const char* name, const at::Tensor& tensor,
                              int64_t dimensions) {
  TORCH_CHECK(tensor.dim() == dimensions, "[", op, "] expected ", name, " of ", dimensions,
              " dimensions, got ", tensor.sym_sizes());
}

// A placeholder for an output that a call does not have.
[[nodiscard]] inline at::Tensor absent(const at::Tensor& like) {
  return at::empty({0}, like.options().dtype(at::kFloat));
}
// In the kernels' form: contiguous, or undefined.
[[nodiscard]] inline at::Tensor packed(const OptionalTensor& tensor) {
  return tensor ? tensor->contiguous() : at::Tensor();
}
[[nodiscard]] inline OptionalTensor optional_of(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}
[[nodiscard]] inline at::Tensor tensor_of(const OptionalTensor& tensor) {
  return tensor ? *tensor : at::Tensor();
}

// Results of a call that are constants for its gradient. They bypass the node: results that are
// marked non-differentiable are refused by compiled autograd.
struct Constants {
  std::vector<at::Tensor> tensors;
};

// The operator wavroute::`name`.
template <typename Signature>
[[nodiscard]] auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace wavroute::functional
