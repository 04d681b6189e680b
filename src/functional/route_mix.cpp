// Phase 1 of the two-phase evaluation: all routers of a block over its finished sources.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "functional/composed.h"
#include "functional/operators.h"
#include "ops/route.h"
#include "wavroute/functional.h"

namespace wavroute::functional {
namespace {

using Tensors = std::vector<at::Tensor>;
using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Backward = std::tuple<Tensors, at::Tensor, at::Tensor>;  // rows, query, bias
constexpr char kName[] = "route_mix";

void check(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
           const at::Tensor& query, const at::Tensor& bias) {
  TORCH_CHECK(!rows.empty(), "[", kName, "] expected at least one row, got none");
  expect_dimensions(kName, "a row", rows[0], 2);
  expect_dimensions(kName, "query", query, 2);
  const c10::SymInt n = static_cast<int64_t>(rows.size()), tokens = rows[0].sym_size(0);
  const bool exact = rows[0].scalar_type() == at::kDouble;
  const at::ScalarType type = exact ? at::kDouble : at::kFloat;
  for (const at::Tensor& row : rows) {
    expect_tensor(kName, "a row", row, rows[0].sym_sizes().vec(), rows[0].scalar_type());
  }
  expect_tensor(kName, "ratio", ratio, {n, tokens}, type);
  expect_tensor(kName, "inverse", inverse, {n, tokens}, type);
  expect_tensor(kName, "query", query, {query.sym_size(0), rows[0].sym_size(1)}, type);
  expect_tensor(kName, "bias", bias, {query.sym_size(0), n}, type);
}

// Rows may be in either type of the kernels.
bool rows_served(at::TensorList rows) {
  const at::ScalarType type = rows[0].scalar_type();
  return rows[0].is_cpu() && (type == at::kFloat || type == at::kBFloat16);
}

// The routers and what they read, contiguous.
ops::RouterGroup group_of(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
                          const at::Tensor& query, const at::Tensor& bias) {
  ops::RouterGroup group;
  for (const at::Tensor& row : rows) group.sources.rows.push_back(row.contiguous());
  group.sources.ratio = ratio.contiguous();
  group.sources.inverse = inverse.contiguous();
  group.routers.query = query.contiguous();
  group.routers.bias = bias.contiguous();
  return group;
}

Forward composed_or_checked(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
                            const at::Tensor& query, const at::Tensor& bias) {
  check(rows, ratio, inverse, query, bias);
  return composed::route_mix(rows, ratio, inverse, query, bias);
}

Forward meta(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
             const at::Tensor& query, const at::Tensor& bias) {
  check(rows, ratio, inverse, query, bias);
  const c10::SymInt n = static_cast<int64_t>(rows.size()), routers = query.sym_size(0);
  const c10::SymInt tokens = rows[0].sym_size(0), d = rows[0].sym_size(1);
  const auto make = [&](const Sizes& sizes) { return at::empty_symint(sizes, query.options()); };
  return {make({routers, tokens, d}), make({routers, tokens}), make({routers, tokens}),
          make({routers, n, tokens})};
}

Forward cpu(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
            const at::Tensor& query, const at::Tensor& bias) {
  TORCH_CHECK(!rows.empty(), "[", kName, "] expected at least one row, got none");
  if (!rows_served(rows)) return composed_or_checked(rows, ratio, inverse, query, bias);
  check(rows, ratio, inverse, query, bias);
  const int64_t tokens = rows[0].size(0), routers = query.size(0);
  const auto make = [&](at::IntArrayRef sizes) { return at::empty(sizes, query.options()); };
  const at::Tensor logits = make({routers, static_cast<int64_t>(rows.size()), tokens});
  ops::RouterGroup group = group_of(rows, ratio, inverse, query, bias);
  group.mixed = make({routers, tokens, rows[0].size(1)});
  group.peak = make({routers, tokens});
  group.mass = make({routers, tokens});
  group.logits = logits.flatten(0, 1);
  ops::mix({&group, 0, routers});
  return {group.mixed, group.peak, group.mass, logits};
}

// The kernel's softmax is over all sources of a reader: its lse is the peak here, so that its
// weights are exp(logit - peak), and the term subtracted from a source's dh . v is - dmass.
Backward backward_cpu(const OptionalTensor& mixed_grad, const OptionalTensor& mass_grad,
                      at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
                      const at::Tensor& query, const at::Tensor& bias, const at::Tensor& peak,
                      const at::Tensor& logits_in) {
  const int64_t tokens = rows[0].size(0), d = rows[0].size(1), routers = query.size(0);
  const auto n = static_cast<int64_t>(rows.size());
  ops::RouterGroup group = group_of(rows, ratio, inverse, query, bias);
  group.logits = logits_in.contiguous().flatten(0, 1);
  group.lse = peak.contiguous();
  group.along = mass_grad ? at::neg(*mass_grad).contiguous() : at::zeros_like(group.lse);
  group.dh = mixed_grad ? packed(mixed_grad) : at::zeros({routers, tokens, d}, query.options());
  Tensors grads;
  for (int64_t j = 0; j < n; ++j) grads.push_back(at::empty({tokens, d}, query.options()));
  ops::SystemMemory memory;
  const at::Tensor query_grad = at::zeros({routers, d}), bias_grad = at::zeros({routers, n});
  ops::mix_backward(memory, {.group = &group,
                             .count = routers,
                             .source_grads = grads,
                             .sets = true,
                             .query_grad = query_grad,
                             .bias_grad = bias_grad});
  for (at::Tensor& grad : grads) grad = grad.to(rows[0].scalar_type());
  return {grads, query_grad, bias_grad};
}

Backward backward_meta(const OptionalTensor&, const OptionalTensor&, at::TensorList rows,
                       const at::Tensor&, const at::Tensor&, const at::Tensor& query,
                       const at::Tensor& bias, const at::Tensor&, const at::Tensor&) {
  Tensors grads;
  for (const at::Tensor& row : rows) {
    grads.push_back(at::empty_symint(row.sym_sizes(), row.options()));
  }
  return {grads, at::empty_symint(query.sym_sizes(), query.options()),
          at::empty_symint(bias.sym_sizes(), bias.options())};
}

struct RouteMix : torch::autograd::Function<RouteMix> {
  using Variables = torch::autograd::variable_list;
  static constexpr bool is_traceable = true;

  static Variables forward(torch::autograd::AutogradContext* ctx, at::TensorList rows,
                           const at::Tensor& ratio, const at::Tensor& inverse,
                           const at::Tensor& query, const at::Tensor& bias, Constants& constants) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = find_operator<decltype(cpu)>("wavroute::route_mix");
    auto [mixed, peak, mass, logits] = op.call(rows, ratio, inverse, query, bias);
    ctx->set_materialize_grads(false);
    Variables saved = {ratio, inverse, query, bias, peak, logits};
    saved.insert(saved.end(), rows.begin(), rows.end());
    ctx->save_for_backward(std::move(saved));
    constants.tensors = {peak, logits};
    return {mixed, mass};
  }

  static Variables backward(torch::autograd::AutogradContext* ctx, const Variables& grads) {
    const Variables saved = ctx->get_saved_variables();
    constexpr size_t kRows = 6;  // the first one
    if (!grads[0].defined() && !grads[1].defined()) return Variables(saved.size() - 1);
    static const auto op = find_operator<decltype(backward_cpu)>("wavroute::route_mix_backward");
    auto [result, query, bias] =
        op.call(optional_of(grads[0]), optional_of(grads[1]), at::TensorList(saved).slice(kRows),
                saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]);
    result.insert(result.end(), {at::Tensor(), at::Tensor(), query, bias, at::Tensor()});
    return result;
  }
};

Forward autograd(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
                 const at::Tensor& query, const at::Tensor& bias) {
  TORCH_CHECK(!rows.empty(), "[", kName, "] expected at least one row, got none");
  if (!rows_served(rows)) return composed_or_checked(rows, ratio, inverse, query, bias);
  Constants constants;
  const auto made = RouteMix::apply(rows, ratio, inverse, query, bias, constants);
  return {made[0], constants.tensors[0], made[1], constants.tensors[1]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def(
      "route_mix(Tensor[] rows, Tensor ratio, Tensor inverse, Tensor query, Tensor bias) -> "
      "(Tensor mixed, Tensor peak, Tensor mass, Tensor logits)");
  m.def(
      "route_mix_backward(Tensor? mixed_grad, Tensor? mass_grad, Tensor[] rows, Tensor ratio, "
      "Tensor inverse, Tensor query, Tensor bias, Tensor peak, Tensor logits) -> "
      "(Tensor[] rows, Tensor query, Tensor bias)");
}
TORCH_LIBRARY_IMPL(wavroute, CPU, m) {
  m.impl("route_mix", TORCH_FN(cpu));
  m.impl("route_mix_backward", TORCH_FN(backward_cpu));
}
TORCH_LIBRARY_IMPL(wavroute, Meta, m) {
  m.impl("route_mix", TORCH_FN(meta));
  m.impl("route_mix_backward", TORCH_FN(backward_meta));
}
TORCH_LIBRARY_IMPL(wavroute, CompositeExplicitAutograd, m) {
  m.impl("route_mix", TORCH_FN(composed_or_checked));
}
TORCH_LIBRARY_IMPL(wavroute, Autograd, m) {
  m.impl("route_mix", TORCH_FN(autograd));
  m.impl("route_mix_backward", torch::autograd::autogradNotImplementedFallback());
}

std::vector<Mixture> Mixture::unbind() const {
  const std::vector<at::Tensor> each_mixed = mixed.unbind(), each_peak = peak.unbind(),
                                each_mass = mass.unbind();
  std::vector<Mixture> each;
  for (size_t r = 0; r < each_mixed.size(); ++r) {
    each.push_back({each_mixed[r], each_peak[r], each_mass[r]});
  }
  return each;
}

Mixture route_mix(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
                  const at::Tensor& query, const at::Tensor& bias) {
  static const auto op = find_operator<decltype(cpu)>("wavroute::route_mix");
  auto [mixed, peak, mass, logits] = op.call(rows, ratio, inverse, query, bias);
  return {std::move(mixed), std::move(peak), std::move(mass)};
}

}  // namespace wavroute::functional
