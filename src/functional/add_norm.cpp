// h' = h + coefficient scale u;  x = gain h' / rms(h')
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#include "functional/composed.h"
#include "functional/operators.h"
#include "ops/norm.h"
#include "wavroute/functional.h"

namespace wavroute::functional {
namespace {

using Type = std::optional<at::ScalarType>;
using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor>;               // h', x, 1 / rms
using Backward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;  // h, u, scale, gain
constexpr char kName[] = "add_norm";

at::ScalarType compute_type(const at::Tensor& h, const OptionalTensor& u, const Type& type) {
  return u ? u->scalar_type() : type.value_or(h.scalar_type());
}

void check(const at::Tensor& h, const OptionalTensor& u, const OptionalTensor& scale,
           const OptionalTensor& gain, const Type& type) {
  TORCH_CHECK(h.dim() > 0, "[", kName, "] expected h [..., d], got a scalar");
  const c10::SymInt d = h.sym_size(-1);
  if (u) expect_sizes(kName, "u", *u, h.sym_sizes().vec());
  if (u && type) expect_type(kName, "u", *u, *type);
  if (scale) {
    const bool single = scale->dim() == 1 && scale->sym_size(0) == 1;
    expect_tensor(kName, "scale", *scale, {single ? c10::SymInt(1) : d}, h.scalar_type());
  }
  if (gain) expect_tensor(kName, "gain", *gain, {d}, h.scalar_type());
}

Forward composed_or_checked(const at::Tensor& h, const OptionalTensor& u,
                            const OptionalTensor& scale, double coefficient,
                            const OptionalTensor& gain, double eps, Type type) {
  check(h, u, scale, gain, type);
  return composed::add_norm(h, u, scale, coefficient, gain, eps, type);
}

Forward cpu(const at::Tensor& h_in, const OptionalTensor& u_in, const OptionalTensor& scale_in,
            double coefficient, const OptionalTensor& gain_in, double eps, Type given) {
  const at::ScalarType type = compute_type(h_in, u_in, given);
  if (!served(h_in, type)) {
    return composed_or_checked(h_in, u_in, scale_in, coefficient, gain_in, eps, given);
  }
  check(h_in, u_in, scale_in, gain_in, given);
  const at::Tensor h = h_in.contiguous();
  ops::SystemMemory memory;
  ops::Addend addend{packed(u_in), packed(scale_in), coefficient, {}};
  if (!u_in) addend.scale.reset();
  const ops::Normed normed = ops::add_norm(memory, h, addend, {packed(gain_in), eps, {}}, type);
  // Results share no memory with arguments or with each other.
  const auto own = [&](const at::Tensor& result) {
    return result.is_alias_of(h) ? result.clone() : result;
  };
  const at::Tensor inverse_rms =
      gain_in ? normed.inverse_rms.view(h.sizes().slice(0, h.dim() - 1)) : absent(h);
  return {own(normed.h), own(normed.x), inverse_rms};
}

Forward meta(const at::Tensor& h, const OptionalTensor& u, const OptionalTensor& scale, double,
             const OptionalTensor& gain, double, Type type) {
  check(h, u, scale, gain, type);
  const auto sizes = h.sym_sizes();
  return {
      at::empty_symint(sizes, h.options()),
      at::empty_symint(sizes, h.options().dtype(compute_type(h, u, type))),
      gain ? at::empty_symint(sizes.slice(0, sizes.size() - 1), h.options()) : absent(h),
  };
}

// h, inverse_rms: with a gain. u: with a scale. The update is of type `type`; in float, without a
// scale and with a coefficient of 1 its gradient is that of h, and absent here.
bool plain(at::ScalarType type, const OptionalTensor& scale, double coefficient) {
  return type == at::kFloat && !scale && coefficient == 1.0;
}

Backward backward_cpu(const OptionalTensor& h_grad, const OptionalTensor& x_grad,
                      const OptionalTensor& h_in, const OptionalTensor& inverse_in,
                      const OptionalTensor& u_in, const OptionalTensor& scale_in,
                      double coefficient, const OptionalTensor& gain_in, at::ScalarType type,
                      std::array<bool, 3> wanted) {
  TORCH_CHECK(h_grad || x_grad, "[add_norm_backward] expected a gradient, got none");
  const at::Tensor& like = h_grad ? *h_grad : *x_grad;
  const int64_t d = like.size(-1);
  const at::Tensor dh = h_grad ? h_grad->clone(at::MemoryFormat::Contiguous)
                               : at::empty(like.sizes(), like.options().dtype(at::kFloat));
  at::Tensor dscale = wanted[1] && scale_in ? at::zeros_like(*scale_in) : absent(dh);
  const at::Tensor dgain = wanted[2] && gain_in ? at::zeros({d}) : absent(dh);
  // Without a scale only the update's type matters; a scale without an update scales nothing.
  ops::Addend addend{at::empty({0}, like.options().dtype(type)), {}, coefficient, {}};
  if (u_in) {
    addend.u = packed(u_in);
    addend.scale = packed(scale_in);
    addend.scale_grad = dscale;
    if (scale_in && !wanted[1]) addend.scale_grad = at::zeros_like(*scale_in);
  }
  ops::Norm norm{packed(gain_in), 0.0, {}};
  if (gain_in) norm.gain_grad = wanted[2] ? dgain : at::zeros({d});
  ops::SystemMemory memory;
  const at::Tensor du =
      ops::add_norm_backward(memory, packed(x_grad), {packed(h_in), {}, packed(inverse_in)}, norm,
                             addend, dh, !h_grad.has_value());
  const bool gives_u = wanted[0] && !plain(type, scale_in, coefficient);
  return {dh, gives_u ? du : absent(dh), dscale, dgain};
}

Backward backward_meta(const OptionalTensor& h_grad, const OptionalTensor& x_grad,
                       const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                       const OptionalTensor& scale, double coefficient, const OptionalTensor& gain,
                       at::ScalarType type, std::array<bool, 3> wanted) {
  const at::Tensor& like = h_grad ? *h_grad : *x_grad;
  const auto sizes = like.sym_sizes();
  const at::TensorOptions options = like.options().dtype(at::kFloat);
  const bool gives_u = wanted[0] && !plain(type, scale, coefficient);
  return {at::empty_symint(sizes, options),
          gives_u ? at::empty_symint(sizes, options.dtype(type)) : absent(like),
          wanted[1] && scale ? at::empty_symint(scale->sym_sizes(), options) : absent(like),
          wanted[2] && gain ? at::empty_symint(gain->sym_sizes(), options) : absent(like)};
}

struct AddNorm : torch::autograd::Function<AddNorm> {
  using Variables = torch::autograd::variable_list;
  static constexpr bool is_traceable = true;

  static Variables forward(torch::autograd::AutogradContext* ctx, const at::Tensor& h,
                           const OptionalTensor& u, const OptionalTensor& scale,
                           const OptionalTensor& gain, double coefficient, double eps, Type type,
                           Constants& constants) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = find_operator<decltype(cpu)>("wavroute::add_norm");
    auto [h_out, x, inverse_rms] = op.call(h, u, scale, coefficient, gain, eps, type);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({gain ? h_out : at::Tensor(), gain ? inverse_rms : at::Tensor(),
                            scale ? tensor_of(u) : at::Tensor(), tensor_of(scale),
                            tensor_of(gain)});
    const auto learns = [](const OptionalTensor& t) { return t && t->requires_grad(); };
    ctx->saved_data["coefficient"] = coefficient;
    ctx->saved_data["type"] = static_cast<int64_t>(compute_type(h, u, type));
    ctx->saved_data["u"] = learns(u);
    ctx->saved_data["scale"] = learns(scale);
    ctx->saved_data["gain"] = learns(gain);
    constants.tensors = {inverse_rms};
    return {h_out, x};
  }

  static Variables backward(torch::autograd::AutogradContext* ctx, const Variables& grads) {
    if (!grads[0].defined() && !grads[1].defined()) return Variables(8);
    static const auto op = find_operator<decltype(backward_cpu)>("wavroute::add_norm_backward");
    const Variables saved = ctx->get_saved_variables();
    const auto type = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
    const double coefficient = ctx->saved_data["coefficient"].toDouble();
    const std::array<bool, 3> wanted = {ctx->saved_data["u"].toBool(),
                                        ctx->saved_data["scale"].toBool(),
                                        ctx->saved_data["gain"].toBool()};
    const OptionalTensor scale = optional_of(saved[3]);
    const auto [h, u, dscale, gain] = op.call(
        optional_of(grads[0]), optional_of(grads[1]), optional_of(saved[0]), optional_of(saved[1]),
        optional_of(saved[2]), scale, coefficient, optional_of(saved[4]), type, wanted);
    const auto if_wanted = [](bool wanted, const at::Tensor& grad) {
      return wanted ? grad : at::Tensor();
    };
    return {h,
            if_wanted(wanted[0], plain(type, scale, coefficient) ? h : u),
            if_wanted(wanted[1], dscale),
            if_wanted(wanted[2], gain),
            {},
            {},
            {},
            {}};
  }
};

Forward autograd(const at::Tensor& h, const OptionalTensor& u, const OptionalTensor& scale,
                 double coefficient, const OptionalTensor& gain, double eps, Type type) {
  if (!served(h, compute_type(h, u, type))) {
    return composed_or_checked(h, u, scale, coefficient, gain, eps, type);
  }
  Constants constants;
  const auto made = AddNorm::apply(h, u, scale, gain, coefficient, eps, type, constants);
  return {made[0], made[1], constants.tensors[0]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def(
      "add_norm(Tensor h, Tensor? u, Tensor? scale, float coefficient, Tensor? gain, float eps, "
      "ScalarType? dtype=None) -> (Tensor h_out, Tensor x, Tensor inverse_rms)");
  m.def(
      "add_norm_backward(Tensor? h_grad, Tensor? x_grad, Tensor? h, Tensor? inverse_rms, "
      "Tensor? u, Tensor? scale, float coefficient, Tensor? gain, ScalarType dtype, "
      "bool[3] wanted) -> (Tensor h, Tensor u, Tensor scale, Tensor gain)");
}
TORCH_LIBRARY_IMPL(wavroute, CPU, m) {
  m.impl("add_norm", TORCH_FN(cpu));
  m.impl("add_norm_backward", TORCH_FN(backward_cpu));
}
TORCH_LIBRARY_IMPL(wavroute, Meta, m) {
  m.impl("add_norm", TORCH_FN(meta));
  m.impl("add_norm_backward", TORCH_FN(backward_meta));
}
TORCH_LIBRARY_IMPL(wavroute, CompositeExplicitAutograd, m) {
  m.impl("add_norm", TORCH_FN(composed_or_checked));
}
TORCH_LIBRARY_IMPL(wavroute, Autograd, m) {
  m.impl("add_norm", TORCH_FN(autograd));
  m.impl("add_norm_backward", torch::autograd::autogradNotImplementedFallback());
}

Normed add_norm(const at::Tensor& h, const at::Tensor& u, const at::Tensor& gain, double eps,
                const at::Tensor& scale, double coefficient, std::optional<at::ScalarType> type) {
  static const auto op = find_operator<decltype(autograd)>("wavroute::add_norm");
  auto [h_out, x, inverse_rms] =
      op.call(h, optional_of(u), optional_of(scale), coefficient, optional_of(gain), eps, type);
  return {std::move(h_out), std::move(x)};
}

}  // namespace wavroute::functional
