// Phase 1 of the two-phase evaluation: all routers of a block over its finished sources.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "functional/composed.h"
#include "functional/operators.h"
#include "ops/parallel.h"
#include "ops/typed.h"
#include "wavroute/functional.h"

namespace wavroute::functional {
namespace {

using ops::in;
using ops::out;
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

Tensors packed_all(at::TensorList tensors) {
  Tensors result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.contiguous());
  return result;
}

// Contiguous arguments of the kernels, and the pointers that these take.
template <typename R>
struct Sources {
  Sources(at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
          const at::Tensor& query, const at::Tensor& bias)
      : rows(packed_all(rows)),
        ratio(ratio.contiguous()),
        inverse(inverse.contiguous()),
        query(query.contiguous()),
        bias(bias.contiguous()) {
    const int64_t tokens = rows[0].size(0);
    for (size_t j = 0; j < rows.size(); ++j) {
      row_starts.push_back(in<R>(this->rows[j]));
      ratio_starts.push_back(in<float>(this->ratio) + static_cast<int64_t>(j) * tokens);
      inverse_starts.push_back(in<float>(this->inverse) + static_cast<int64_t>(j) * tokens);
    }
  }
  template <typename Args>
  void set(Args& args) const {
    args.d = rows[0].size(1);
    args.tokens = rows[0].size(0);
    args.pitch = args.tokens * args.d;
    args.sources = static_cast<int64_t>(rows.size());
    args.routers = query.size(0);
    args.rows = row_starts.data();
    args.ratio = ratio_starts.data();
    args.inverse = inverse_starts.data();
    args.query = in<float>(query);
    args.bias = in<float>(bias);
  }
  Tensors rows;
  at::Tensor ratio, inverse, query, bias;
  std::vector<const R*> row_starts;
  std::vector<const float*> ratio_starts, inverse_starts;
};

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
  const at::Tensor mixed = make({routers, tokens, rows[0].size(1)});
  const at::Tensor peak = make({routers, tokens}), mass = make({routers, tokens});
  const at::Tensor logits = make({routers, static_cast<int64_t>(rows.size()), tokens});
  ops::with_type(rows[0].scalar_type(), [&]<typename R>() {
    const Sources<R> sources(rows, ratio, inverse, query, bias);
    kernels::MixFinished<R, float> args;
    sources.set(args);
    args.logits = out<float>(logits);
    args.peak = out<float>(peak);
    args.mass = out<float>(mass);
    args.mixed = out<float>(mixed);
    const auto kernel = kernels::chosen_kernels().finished->of<R>().mix.fp32.forward;
    ops::for_chunks(tokens, [&](int64_t, int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
  return {mixed, peak, mass, logits};
}

// The kernel's softmax is over all sources of a reader: its lse is the peak here, so that its
// weights are exp(logit - peak), and what it takes off a source's dh . v is - dmass.
Backward backward_cpu(const OptionalTensor& mixed_grad, const OptionalTensor& mass_grad,
                      at::TensorList rows, const at::Tensor& ratio, const at::Tensor& inverse,
                      const at::Tensor& query, const at::Tensor& bias, const at::Tensor& peak,
                      const at::Tensor& logits_in) {
  const int64_t tokens = rows[0].size(0), d = rows[0].size(1), routers = query.size(0);
  const auto n = static_cast<int64_t>(rows.size());
  const at::Tensor dmixed =
      mixed_grad ? packed(mixed_grad) : at::zeros({routers, tokens, d}, query.options());
  const at::Tensor along = mass_grad ? at::neg(*mass_grad).contiguous() : at::zeros_like(peak);
  const at::Tensor lse = peak.contiguous(), logits = logits_in.contiguous();
  Tensors grads;
  std::vector<float*> starts;
  for (int64_t j = 0; j < n; ++j) {
    grads.push_back(at::empty({tokens, d}, query.options()));
    starts.push_back(out<float>(grads.back()));
  }
  const at::Tensor first = at::ones({n}, at::kBool);
  const ops::PartialSums query_grad(ops::chunk_count(tokens), routers * d);
  const ops::PartialSums bias_grad(ops::chunk_count(tokens), routers * n);
  const at::ScalarType type = rows[0].scalar_type();
  ops::with_type(type, [&]<typename R>() {
    const Sources<R> sources(rows, ratio, inverse, query, bias);
    kernels::MixFinishedBackward<R, float> args;
    sources.set(args);
    args.logits = in<float>(logits);
    args.lse = in<float>(lse);
    args.along = in<float>(along);
    args.dh = in<float>(dmixed);
    args.grads = starts.data();
    args.first = in<bool>(first);
    const auto kernel = kernels::chosen_kernels().finished->of<R>().mix.fp32.backward;
    ops::for_chunks(tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
      kernels::MixFinishedBackward<R, float> own = args;
      own.query_grad = query_grad.of(chunk);
      own.bias_grad = bias_grad.of(chunk);
      kernel(own, begin, end);
    });
  });
  for (at::Tensor& grad : grads) grad = grad.to(type);
  return {grads, query_grad.total({routers, d}), bias_grad.total({routers, n})};
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
