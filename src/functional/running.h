// The running block as the operators take it: its parts and the forms that readers see
// (kernels/route.h).
#pragma once

#include <ATen/core/List.h>

#include <span>
#include <vector>

#include "functional/operators.h"
#include "kernels/route.h"

namespace wavroute::functional {

using OptionalTensors = c10::List<OptionalTensor>;

// The sign of part `part` in form `form`.
[[nodiscard]] inline float sign_of(int64_t form, int64_t part) {
  return form > 0 && (part >> (form - 1) & 1) != 0 ? -1.0F : 1.0F;
}

// A tensor of the shape, type and device of the parts.
[[nodiscard]] at::Tensor stream_of(const OptionalTensor& u, const OptionalTensors& parts);

// What every operator on a running block asks of its write, parts and forms; `like`: [tokens, d] of
// the stream.
void check_running(const char* op, const OptionalTensor& u, int64_t part,
                   const OptionalTensors& parts, at::IntArrayRef forms, const at::Tensor& like);

// The parts that are there, and their places.
struct PresentParts {
  explicit PresentParts(const OptionalTensors& parts);
  // The list that they come from, of `count` places.
  [[nodiscard]] static OptionalTensors list(at::TensorList parts, at::IntArrayRef places,
                                            int64_t count);

  std::vector<at::Tensor> parts;
  std::vector<int64_t> places;
};

// What the node of a call on a running block is told besides tensors.
struct RunningCall {
  int64_t part = 0;
  std::vector<int64_t> places;  // of the parts that are there
  int64_t count = 0;            // of parts
  std::vector<int64_t> forms;
  double norm_eps = 0.0, matching_eps = 0.0;
};

// Undefined: none.
[[nodiscard]] OptionalTensors optional_list(std::span<const at::Tensor> parts);

// Parts as the kernels take them; the contiguous tensors live as long as this.
struct PackedParts {
  explicit PackedParts(const OptionalTensors& parts);
  kernels::Parts rows;
  std::vector<at::Tensor> held;  // by place, undefined where there is none
};

// A gradient [tokens, d] and its sign in a sum of gradients.
struct SignedGrad {
  const float* grad = nullptr;
  float sign = 1.0F;
};
// out = the sum of at least one signed gradient, in C; at most kMostRunning. `out` may be one of
// them.
template <typename C>
void add_grads(std::span<const SignedGrad> grads, C* out, int64_t d, int64_t begin, int64_t end);

}  // namespace wavroute::functional
