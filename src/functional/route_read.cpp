// The write of an update, phase 2 of the reader after it, and its PreNorm.
#include "functional/route_read.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "functional/composed.h"
#include "wavroute/functional.h"

namespace wavroute::functional {
namespace {

using Type = std::optional<at::ScalarType>;
// part, x, h, inverse_rms, lse, running
using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
constexpr char kName[] = "route_read";

at::ScalarType compute_type(const at::Tensor& mixed, const OptionalTensor& u, const Type& type) {
  return u ? u->scalar_type() : type.value_or(mixed.scalar_type());
}

void check(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
           at::IntArrayRef forms, const at::Tensor& mixed, const at::Tensor& peak,
           const at::Tensor& mass, const at::Tensor& query, const at::Tensor& bias,
           const OptionalTensor& gain, const Type& type) {
  expect_dimensions(kName, "mixed", mixed, 2);
  check_running(kName, u, part, parts, forms, mixed);
  if (u && type) expect_type(kName, "u", *u, *type);
  const c10::SymInt tokens = mixed.sym_size(0), d = mixed.sym_size(1);
  const at::ScalarType stream = mixed.scalar_type();
  expect_tensor(kName, "peak", peak, {tokens}, stream);
  expect_tensor(kName, "mass", mass, {tokens}, stream);
  expect_tensor(kName, "query", query, {d}, stream);
  expect_tensor(kName, "bias", bias, {static_cast<int64_t>(forms.size())}, stream);
  if (gain) expect_tensor(kName, "gain", *gain, {d}, stream);
}

Forward composed_or_checked(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
                            at::IntArrayRef forms, const at::Tensor& mixed, const at::Tensor& peak,
                            const at::Tensor& mass, const at::Tensor& query, const at::Tensor& bias,
                            const OptionalTensor& gain, double norm_eps, double matching_eps,
                            Type type) {
  check(u, part, parts, forms, mixed, peak, mass, query, bias, gain, type);
  return composed::route_read(u, part, parts, forms, mixed, peak, mass, query, bias, gain, norm_eps,
                              matching_eps, type);
}

// What a call gives; `empty(sizes, type)` makes it.
template <typename Size, typename Make>
Forward make_results(bool writes, bool norms, const Size& tokens, const Size& d, int64_t running,
                     const at::Tensor& mixed, at::ScalarType type, const Make& make) {
  return {writes ? make({tokens, d}, at::kFloat) : absent(mixed),
          make({tokens, d}, type),
          norms ? make({tokens, d}, type) : absent(mixed),
          norms ? make({tokens}, at::kFloat) : absent(mixed),
          make({tokens}, at::kFloat),
          make({Size(running), Size(3), tokens}, at::kFloat)};
}

Forward cpu(const OptionalTensor& u_in, int64_t part, const OptionalTensors& parts,
            at::IntArrayRef forms, const at::Tensor& mixed_in, const at::Tensor& peak_in,
            const at::Tensor& mass_in, const at::Tensor& query_in, const at::Tensor& bias_in,
            const OptionalTensor& gain_in, double norm_eps, double matching_eps, Type given) {
  const at::ScalarType type = compute_type(mixed_in, u_in, given);
  if (!served(mixed_in, type)) {
    return composed_or_checked(u_in, part, parts, forms, mixed_in, peak_in, mass_in, query_in,
                               bias_in, gain_in, norm_eps, matching_eps, given);
  }
  check(u_in, part, parts, forms, mixed_in, peak_in, mass_in, query_in, bias_in, gain_in, given);
  const at::Tensor mixed = mixed_in.to(type).contiguous();
  Forward results = make_results(u_in.has_value(), gain_in.has_value(), mixed.size(0),
                                 mixed.size(1), static_cast<int64_t>(forms.size()), mixed, type,
                                 [&](std::initializer_list<int64_t> sizes, at::ScalarType of) {
                                   return at::empty(sizes, mixed.options().dtype(of));
                                 });
  const auto& [part_out, x, h, inverse_rms, lse, running] = results;
  ops::RouterGroup group = group_of_one(query_in, bias_in);
  group.peak = peak_in.contiguous().unsqueeze(0);
  group.mass = mass_in.contiguous().unsqueeze(0);
  group.mixed = mixed.unsqueeze(0);
  group.lse = lse.unsqueeze(0);
  group.running = running.flatten(0, 1);
  ops::RunningRead read;
  read.group = &group;
  read.parts = packed_parts(parts);
  read.write = write_of(u_in, part, read.parts, part_out);
  read.sources = forms_from(forms);
  read.eps = {norm_eps, matching_eps};
  read.x = x;
  if (gain_in) {
    read.gain = packed(gain_in);
    read.h = h;
    read.inverse_rms = inverse_rms;
  }
  ops::read(read);
  return results;
}

Forward meta(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
             at::IntArrayRef forms, const at::Tensor& mixed, const at::Tensor& peak,
             const at::Tensor& mass, const at::Tensor& query, const at::Tensor& bias,
             const OptionalTensor& gain, double, double, Type type) {
  check(u, part, parts, forms, mixed, peak, mass, query, bias, gain, type);
  return make_results(u.has_value(), gain.has_value(), mixed.sym_size(0), mixed.sym_size(1),
                      static_cast<int64_t>(forms.size()), mixed, compute_type(mixed, u, type),
                      [&](std::initializer_list<c10::SymInt> sizes, at::ScalarType of) {
                        const bool exact = mixed.scalar_type() == at::kDouble && of == at::kFloat;
                        return at::empty_symint(sizes,
                                                mixed.options().dtype(exact ? at::kDouble : of));
                      });
}

// The arguments of a call's node besides tensors.
struct Call : RunningCall {
  Type type;
};

struct RouteRead : torch::autograd::Function<RouteRead> {
  using Variables = torch::autograd::variable_list;
  static constexpr bool is_traceable = true;
  static constexpr size_t kSaved = 8;  // before the parts

  static Variables forward(torch::autograd::AutogradContext* ctx, at::TensorList parts,
                           const OptionalTensor& u, const at::Tensor& mixed, const at::Tensor& peak,
                           const at::Tensor& mass, const at::Tensor& query, const at::Tensor& bias,
                           const OptionalTensor& gain, const Call& call, Constants& constants) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = find_operator<decltype(cpu)>("wavroute::route_read");
    OptionalTensors seen = PresentParts::list(parts, call.places, call.count);
    auto [part_out, x, h, inverse_rms, lse, running] =
        op.call(u, call.part, seen, call.forms, mixed, peak, mass, query, bias, gain, call.norm_eps,
                call.matching_eps, call.type);
    ctx->set_materialize_grads(false);
    constants.tensors = {h, inverse_rms, lse, running};
    if (u) seen.set(static_cast<size_t>(call.part), part_out);
    const PresentParts present(seen);
    Variables saved = {
        gain ? h : x,   gain ? inverse_rms : at::Tensor(), peak, lse, running, query, bias,
        tensor_of(gain)};
    saved.insert(saved.end(), present.parts.begin(), present.parts.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["part"] = u ? call.part : -1;
    ctx->saved_data["before"] = call.places;
    ctx->saved_data["places"] = present.places;
    ctx->saved_data["count"] = call.count;
    ctx->saved_data["forms"] = call.forms;
    if (u) ctx->saved_data["type"] = static_cast<int64_t>(u->scalar_type());
    return {part_out, x};
  }

  static Variables backward(torch::autograd::AutogradContext* ctx, const Variables& grads) {
    const int64_t part = ctx->saved_data["part"].toInt();
    const std::vector<int64_t> before = ctx->saved_data["before"].toIntVector();
    const std::vector<int64_t> places = ctx->saved_data["places"].toIntVector();
    const at::Tensor part_grad = part >= 0 ? grads[0] : at::Tensor();
    std::vector<at::Tensor> by_place(ops::kMostParts);
    Variables rest(6);  // mixed, peak, mass, query, bias, gain
    at::Tensor u_grad;  // in float: undefined, it is that of its part
    if (grads[1].defined()) {
      static const auto op =
          find_operator<decltype(route_read_backward)>("wavroute::route_read_backward");
      const Variables saved = ctx->get_saved_variables();
      const OptionalTensors seen = PresentParts::list(at::TensorList(saved).slice(kSaved), places,
                                                      ctx->saved_data["count"].toInt());
      const auto [u, parts, mixed, mass, query, bias, gain] =
          op.call(optional_of(part_grad), grads[1], seen, part,
                  ctx->saved_data["forms"].toIntVector(), saved[0], optional_of(saved[1]), saved[2],
                  saved[3], saved[4], saved[5], saved[6], optional_of(saved[7]));
      for (size_t i = 0; i < places.size(); ++i) {
        by_place[static_cast<size_t>(places[i])] = parts[i];
      }
      if (part >= 0 && grads[1].scalar_type() != at::kFloat) u_grad = u;
      rest = {mixed, {}, mass, query, bias, saved[7].defined() ? gain : at::Tensor()};
    } else if (part_grad.defined()) {
      by_place[static_cast<size_t>(part)] = part_grad;
      const auto type = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
      if (type != at::kFloat) u_grad = part_grad.to(type);
    }
    if (part >= 0 && !u_grad.defined()) u_grad = by_place[static_cast<size_t>(part)];
    Variables result;
    for (const int64_t place : before) result.push_back(by_place[static_cast<size_t>(place)]);
    result.push_back(u_grad);
    result.insert(result.end(), rest.begin(), rest.end());
    result.resize(result.size() + 2);
    return result;
  }
};

Forward autograd(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
                 at::IntArrayRef forms, const at::Tensor& mixed, const at::Tensor& peak,
                 const at::Tensor& mass, const at::Tensor& query, const at::Tensor& bias,
                 const OptionalTensor& gain, double norm_eps, double matching_eps, Type type) {
  if (!served(mixed, compute_type(mixed, u, type))) {
    return composed_or_checked(u, part, parts, forms, mixed, peak, mass, query, bias, gain,
                               norm_eps, matching_eps, type);
  }
  PresentParts present(parts);
  const Call call = {{part, std::move(present.places), static_cast<int64_t>(parts.size()),
                      forms.vec(), norm_eps, matching_eps},
                     type};
  Constants constants;
  const auto made = RouteRead::apply(at::TensorList(present.parts), u, mixed, peak, mass, query,
                                     bias, gain, call, constants);
  const std::vector<at::Tensor>& kept = constants.tensors;
  return {made[0], made[1], kept[0], kept[1], kept[2], kept[3]};
}

}  // namespace

// All registrations are in this file: the linker takes it for route_read() below; otherwise it
// drops the object file.
TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def(
      "route_read(Tensor? u, int part, Tensor?[] parts, int[] forms, Tensor mixed, Tensor peak, "
      "Tensor mass, Tensor query, Tensor bias, Tensor? gain, float norm_eps, float matching_eps, "
      "ScalarType? dtype=None) -> "
      "(Tensor part, Tensor x, Tensor h, Tensor inverse_rms, Tensor lse, Tensor running)");
  m.def(
      "route_read_backward(Tensor? part_grad, Tensor x_grad, Tensor?[] parts, int part, "
      "int[] forms, Tensor h, Tensor? inverse_rms, Tensor peak, Tensor lse, Tensor running, "
      "Tensor query, Tensor bias, Tensor? gain) -> (Tensor u, Tensor[] parts, Tensor mixed, "
      "Tensor mass, Tensor query, Tensor bias, Tensor gain)");
}
TORCH_LIBRARY_IMPL(wavroute, CPU, m) {
  m.impl("route_read", TORCH_FN(cpu));
  m.impl("route_read_backward", TORCH_FN(route_read_backward));
}
TORCH_LIBRARY_IMPL(wavroute, Meta, m) {
  m.impl("route_read", TORCH_FN(meta));
  m.impl("route_read_backward", TORCH_FN(route_read_backward_meta));
}
TORCH_LIBRARY_IMPL(wavroute, CompositeExplicitAutograd, m) {
  m.impl("route_read", TORCH_FN(composed_or_checked));
}
TORCH_LIBRARY_IMPL(wavroute, Autograd, m) {
  m.impl("route_read", TORCH_FN(autograd));
  m.impl("route_read_backward", torch::autograd::autogradNotImplementedFallback());
}

Read route_read(const at::Tensor& u, int64_t part, std::span<const at::Tensor> parts,
                at::IntArrayRef forms, const Mixture& finished, const Reader& reader,
                const Eps& eps, std::optional<at::ScalarType> type) {
  static const auto op = find_operator<decltype(cpu)>("wavroute::route_read");
  const bool no_bias = forms.empty() && !reader.bias.defined();
  const at::Tensor bias = no_bias ? at::empty({0}, finished.mixed.options()) : reader.bias;
  auto [part_out, x, h, inverse_rms, lse, running] = op.call(
      optional_of(u), part, optional_list(parts), forms, finished.mixed, finished.peak,
      finished.mass, reader.query, bias, optional_of(reader.gain), eps.norm, eps.matching, type);
  return {u.defined() ? std::move(part_out) : at::Tensor(), std::move(x)};
}

}  // namespace wavroute::functional
