// The operators composed of stock operators: the fallback for other devices and types, the oracle
// of the tests, and a baseline to measure against. They run under plain autograd, in the type of
// their stream (float or double), and return the results of the operators of the same name,
// including the tensors kept for the backward. Shapes and formulas: wavroute/functional.h.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace wavroute::functional::composed {

using OptionalTensor = std::optional<at::Tensor>;
using OptionalTensors = c10::List<OptionalTensor>;

// h', x, 1 / rms(h')
[[nodiscard]] std::tuple<at::Tensor, at::Tensor, at::Tensor> add_norm(
    const at::Tensor& h, const OptionalTensor& u, const OptionalTensor& scale, double coefficient,
    const OptionalTensor& gain, double eps, std::optional<at::ScalarType> type);

// ratio, inverse
[[nodiscard]] std::tuple<at::Tensor, at::Tensor> source_scalars(const at::Tensor& row,
                                                                const OptionalTensor& summary,
                                                                double norm_eps,
                                                                double matching_eps);

// mixed, peak, mass, logits [R, n, tokens]
[[nodiscard]] std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> route_mix(
    at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
    const at::Tensor& query, const at::Tensor& bias);

// The sums that readers see: form f = sum_k (+-1) part_k (kernels/route.h), of shape and type of
// `like` where no part is there.
[[nodiscard]] std::vector<at::Tensor> forms_of(const OptionalTensors& parts,
                                               const at::Tensor& like);

// part, x, h (absent without a gain), 1 / rms(h), lse, and of each running source its dot, ratio
// and inverse [running, 3, tokens]
[[nodiscard]] std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
route_read(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
           at::IntArrayRef forms, const at::Tensor& mixed, const at::Tensor& peak,
           const at::Tensor& mass, const at::Tensor& query, const at::Tensor& bias,
           const OptionalTensor& gain, double norm_eps, double matching_eps,
           std::optional<at::ScalarType> type);

// rows, ratio, inverse
[[nodiscard]] std::tuple<std::vector<at::Tensor>, at::Tensor, at::Tensor> route_finish(
    const OptionalTensor& u, int64_t part, const OptionalTensors& parts, at::IntArrayRef forms,
    double norm_eps, double matching_eps);

}  // namespace wavroute::functional::composed
