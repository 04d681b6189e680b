// The two halves of route_read: route_read.cpp has the forward and the graph, route_read_backward
// the kernel calls backwards.
#pragma once

#include <tuple>

#include "functional/running.h"

namespace wavroute::functional {

// A reader's router as a group of one. query [d], bias [running].
[[nodiscard]] ops::RouterGroup group_of_one(const at::Tensor& query, const at::Tensor& bias);

// The gradients of u (absent where it is that of its part: in float), of the parts that are there,
// of mixed, mass, query, bias and gain (absent without one).
using ReadGrads = std::tuple<at::Tensor, std::vector<at::Tensor>, at::Tensor, at::Tensor,
                             at::Tensor, at::Tensor, at::Tensor>;

// part_grad: of the written part, from later readers. x_grad [tokens, d]. parts: as the reader saw
// them. part: the one that was written, -1 for none. h: x where there is no gain.
[[nodiscard]] ReadGrads route_read_backward(const OptionalTensor& part_grad,
                                            const at::Tensor& x_grad, const OptionalTensors& parts,
                                            int64_t part, at::IntArrayRef forms,
                                            const at::Tensor& h, const OptionalTensor& inverse_rms,
                                            const at::Tensor& peak, const at::Tensor& lse,
                                            const at::Tensor& running, const at::Tensor& query,
                                            const at::Tensor& bias, const OptionalTensor& gain);

// Their shapes and types.
[[nodiscard]] ReadGrads route_read_backward_meta(
    const OptionalTensor& part_grad, const at::Tensor& x_grad, const OptionalTensors& parts,
    int64_t part, at::IntArrayRef forms, const at::Tensor& h, const OptionalTensor& inverse_rms,
    const at::Tensor& peak, const at::Tensor& lse, const at::Tensor& running,
    const at::Tensor& query, const at::Tensor& bias, const OptionalTensor& gain);

}  // namespace wavroute::functional
