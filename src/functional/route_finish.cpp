// The last write of a block: the forms of its parts become finished sources.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "functional/composed.h"
#include "functional/running.h"
#include "wavroute/functional.h"

namespace wavroute::functional {
namespace {

using Tensors = std::vector<at::Tensor>;
using Forward = std::tuple<Tensors, at::Tensor, at::Tensor>;  // rows, ratio, inverse
using Backward = std::tuple<at::Tensor, Tensors>;             // u, parts
constexpr char kName[] = "route_finish";

at::ScalarType compute_type(const at::Tensor& stream, const OptionalTensor& u) {
  return u ? u->scalar_type() : stream.scalar_type();
}

at::Tensor checked(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
                   at::IntArrayRef forms) {
  at::Tensor like = stream_of(u, parts);
  expect_dimensions(kName, "a part", like, 2);
  check_running(kName, u, part, parts, forms, like);
  TORCH_CHECK(!forms.empty(), "[", kName, "] expected at least one form, got none");
  return like;
}

Forward composed_or_checked(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
                            at::IntArrayRef forms, double norm_eps, double matching_eps) {
  (void)checked(u, part, parts, forms);
  return composed::route_finish(u, part, parts, forms, norm_eps, matching_eps);
}

Forward cpu(const OptionalTensor& u_in, int64_t part, const OptionalTensors& parts,
            at::IntArrayRef forms, double norm_eps, double matching_eps) {
  const at::Tensor like = checked(u_in, part, parts, forms);
  const at::ScalarType type = compute_type(like, u_in);
  if (!served(like, type)) {
    return composed::route_finish(u_in, part, parts, forms, norm_eps, matching_eps);
  }
  const int64_t tokens = like.size(0), d = like.size(1);
  const auto sums = static_cast<int64_t>(forms.size());
  const at::TensorOptions options = like.options();
  const at::Tensor ratio = at::empty({sums, tokens}, options), inverse = at::empty_like(ratio);
  ops::BlockEnd end;
  end.type = type;
  end.parts = packed_parts(parts);
  end.write =
      write_of(u_in, part, end.parts, u_in ? at::empty({tokens, d}, options) : at::Tensor());
  end.sums = forms_from(forms);
  end.eps = {norm_eps, matching_eps};
  for (size_t s = 0; s < forms.size(); ++s) {
    end.row[s] = at::empty({tokens, d}, options);
    end.ratio[s] = ratio[static_cast<int64_t>(s)];
    end.inverse[s] = inverse[static_cast<int64_t>(s)];
  }
  ops::finish_block(end);
  return {Tensors(end.row.begin(), end.row.begin() + sums), ratio, inverse};
}

Forward meta(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
             at::IntArrayRef forms, double, double) {
  const at::Tensor like = checked(u, part, parts, forms);
  Tensors rows;
  for (size_t s = 0; s < forms.size(); ++s) {
    rows.push_back(at::empty_symint(like.sym_sizes(), like.options()));
  }
  const Sizes scalars = {static_cast<int64_t>(forms.size()), like.sym_size(0)};
  return {rows, at::empty_symint(scalars, like.options()),
          at::empty_symint(scalars, like.options())};
}

// From gradients of rows, which have the forms `forms`, those of the parts at `places`, and that of
// the update, which went to `part`, in `type`: absent in float, where it is its part's.
Backward backward_cpu(at::TensorList row_grads, at::IntArrayRef forms, at::IntArrayRef places,
                      int64_t part, at::ScalarType type) {
  TORCH_CHECK(!row_grads.empty(), "[route_finish_backward] expected a gradient, got none");
  Tensors held, part_grads;
  for (const at::Tensor& grad : row_grads) held.push_back(grad.contiguous());
  const auto gather = [&](int64_t place) {
    std::vector<ops::SignedGrad> grads;
    for (size_t s = 0; s < held.size(); ++s) {
      grads.push_back({held[s], ops::sign_of(forms[s], place)});
    }
    return grads;
  };
  for (const int64_t place : places) {
    part_grads.push_back(at::empty_like(held[0]));
    ops::add_signed(gather(place), part_grads.back());
  }
  if (part < 0 || type == at::kFloat) return {absent(held[0]), part_grads};
  at::Tensor du = at::empty_like(held[0], held[0].options().dtype(type));
  ops::add_signed(gather(part), du);
  return {du, part_grads};
}

Backward backward_meta(at::TensorList row_grads, at::IntArrayRef, at::IntArrayRef places,
                       int64_t part, at::ScalarType type) {
  const at::Tensor& like = row_grads[0];
  const auto make = [&](at::ScalarType of) {
    return at::empty_symint(like.sym_sizes(), like.options().dtype(of));
  };
  Tensors part_grads;
  for (size_t i = 0; i < places.size(); ++i) part_grads.push_back(make(at::kFloat));
  return {part >= 0 && type != at::kFloat ? make(type) : absent(like), part_grads};
}

struct RouteFinish : torch::autograd::Function<RouteFinish> {
  using Variables = torch::autograd::variable_list;
  static constexpr bool is_traceable = true;

  static Variables forward(torch::autograd::AutogradContext* ctx, at::TensorList parts,
                           const OptionalTensor& u, const RunningCall& call, Constants& constants) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = find_operator<decltype(cpu)>("wavroute::route_finish");
    auto [made, ratio, inverse] =
        op.call(u, call.part, PresentParts::list(parts, call.places, call.count), call.forms,
                call.norm_eps, call.matching_eps);
    ctx->set_materialize_grads(false);
    constants.tensors = {ratio, inverse};
    ctx->saved_data["part"] = u ? call.part : -1;
    ctx->saved_data["places"] = call.places;
    ctx->saved_data["forms"] = call.forms;
    ctx->saved_data["type"] = static_cast<int64_t>(u ? u->scalar_type() : at::kFloat);
    return made;
  }

  static Variables backward(torch::autograd::AutogradContext* ctx, const Variables& grads) {
    const std::vector<int64_t> forms = ctx->saved_data["forms"].toIntVector();
    const std::vector<int64_t> places = ctx->saved_data["places"].toIntVector();
    const int64_t part = ctx->saved_data["part"].toInt();
    const auto type = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
    Variables result(places.size() + 3);
    Tensors came;  // from readers
    std::vector<int64_t> came_forms;
    for (size_t s = 0; s < forms.size(); ++s) {
      if (!grads[s].defined()) continue;
      came.push_back(grads[s]);
      came_forms.push_back(forms[s]);
    }
    if (came.empty()) return result;
    // A float update to a part without earlier updates needs the part's gradient nevertheless.
    std::vector<int64_t> asked = places;
    const auto place = std::find(places.begin(), places.end(), part) - places.begin();
    if (part >= 0 && type == at::kFloat && place == static_cast<int64_t>(places.size())) {
      asked.push_back(part);
    }
    static const auto op = find_operator<decltype(backward_cpu)>("wavroute::route_finish_backward");
    const auto [u, parts] = op.call(came, came_forms, asked, part, type);
    std::copy_n(parts.begin(), places.size(), result.begin());
    if (part >= 0) {
      result[places.size()] = type == at::kFloat ? parts[static_cast<size_t>(place)] : u;
    }
    return result;
  }
};

Forward autograd(const OptionalTensor& u, int64_t part, const OptionalTensors& parts,
                 at::IntArrayRef forms, double norm_eps, double matching_eps) {
  const at::Tensor like = stream_of(u, parts);
  if (!served(like, compute_type(like, u))) {
    return composed_or_checked(u, part, parts, forms, norm_eps, matching_eps);
  }
  PresentParts present(parts);
  const RunningCall call = {part,
                            std::move(present.places),
                            static_cast<int64_t>(parts.size()),
                            forms.vec(),
                            norm_eps,
                            matching_eps};
  Constants constants;
  const Tensors made = RouteFinish::apply(at::TensorList(present.parts), u, call, constants);
  return {made, constants.tensors[0], constants.tensors[1]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wavroute, m) {
  m.def(
      "route_finish(Tensor? u, int part, Tensor?[] parts, int[] forms, float norm_eps, "
      "float matching_eps) -> (Tensor[] rows, Tensor ratio, Tensor inverse)");
  m.def(
      "route_finish_backward(Tensor[] row_grads, int[] forms, int[] places, int part, "
      "ScalarType dtype) -> (Tensor u, Tensor[] parts)");
}
TORCH_LIBRARY_IMPL(wavroute, CPU, m) {
  m.impl("route_finish", TORCH_FN(cpu));
  m.impl("route_finish_backward", TORCH_FN(backward_cpu));
}
TORCH_LIBRARY_IMPL(wavroute, Meta, m) {
  m.impl("route_finish", TORCH_FN(meta));
  m.impl("route_finish_backward", TORCH_FN(backward_meta));
}
TORCH_LIBRARY_IMPL(wavroute, CompositeExplicitAutograd, m) {
  m.impl("route_finish", TORCH_FN(composed_or_checked));
}
TORCH_LIBRARY_IMPL(wavroute, Autograd, m) {
  m.impl("route_finish", TORCH_FN(autograd));
  m.impl("route_finish_backward", torch::autograd::autogradNotImplementedFallback());
}

Finished route_finish(const at::Tensor& u, int64_t part, std::span<const at::Tensor> parts,
                      at::IntArrayRef forms, const Eps& eps) {
  static const auto op = find_operator<decltype(cpu)>("wavroute::route_finish");
  auto [rows, ratio, inverse] =
      op.call(optional_of(u), part, optional_list(parts), forms, eps.norm, eps.matching);
  return {std::move(rows), std::move(ratio), std::move(inverse)};
}

}  // namespace wavroute::functional
