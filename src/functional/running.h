// The running block in the operators' form: its parts and the forms that readers see (ops/route.h).
#pragma once

#include <ATen/core/List.h>

#include <span>
#include <vector>

#include "functional/operators.h"
#include "ops/route.h"

namespace wavroute::functional {

using OptionalTensors = c10::List<OptionalTensor>;

// A tensor of the shape, type and device of the parts.
[[nodiscard]] at::Tensor stream_of(const OptionalTensor& u, const OptionalTensors& parts);

// Checks the write, parts and forms of an operator on a running block; `like`: [tokens, d] of the
// stream.
void check_running(const char* op, const OptionalTensor& u, int64_t part,
                   const OptionalTensors& parts, at::IntArrayRef forms, const at::Tensor& like);

// The parts that have updates, and their indices.
struct PresentParts {
  explicit PresentParts(const OptionalTensors& parts);
  // The list that they come from, of `count` places.
  [[nodiscard]] static OptionalTensors list(at::TensorList parts, at::IntArrayRef places,
                                            int64_t count);

  std::vector<at::Tensor> parts;
  std::vector<int64_t> places;
};

// The arguments of a node on a running block besides tensors.
struct RunningCall {
  int64_t part = 0;
  std::vector<int64_t> places;  // of the parts that are there
  int64_t count = 0;            // of parts
  std::vector<int64_t> forms;
  double norm_eps = 0.0, matching_eps = 0.0;
};

// Undefined: none.
[[nodiscard]] OptionalTensors optional_list(std::span<const at::Tensor> parts);

// Parts as the kernels take them, contiguous.
[[nodiscard]] ops::RunningParts packed_parts(const OptionalTensors& parts);
[[nodiscard]] ops::RunningForms forms_from(at::IntArrayRef forms);
// The write of `u` to part `part` of `before`, into `after`; nothing without a u.
[[nodiscard]] ops::PartWrite write_of(const OptionalTensor& u, int64_t part,
                                      const ops::RunningParts& before, const at::Tensor& after);

}  // namespace wavroute::functional
