#include "model/sublayer.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace wavroute {
namespace {

// `part` [n, width] as rows of a zero tensor like `whole_rows` rows.
at::Tensor scatter_rows(const at::Tensor& part, const at::Tensor& rows, int64_t whole_rows) {
  at::Tensor whole = at::zeros({whole_rows, part.size(-1)}, part.options());
  return whole.index_copy_(0, rows, part);
}

std::vector<Parameter*> present(std::vector<Parameter*> parameters) {
  std::erase(parameters, nullptr);
  return parameters;
}

// The rows [tokens, n] that still run: of all, where `rows` is undefined.
at::Tensor pick_rows(const at::Tensor& x, const at::Tensor& rows) {
  const at::Tensor all = x.flatten(0, -2);
  return rows.defined() ? all.index_select(0, rows) : all;
}
// Back among zeros, in the shape of `like`.
at::Tensor put_rows(const at::Tensor& u, const at::Tensor& rows, const at::Tensor& like) {
  return (rows.defined() ? scatter_rows(u, rows, like.size(0) * like.size(1)) : u)
      .view(like.sizes());
}

}  // namespace

at::Tensor product(ops::Backend& backend, const at::Tensor& x, const Parameter& w,
                   const Parameter* bias) {
  at::Tensor y = w.quants.defined() ? backend.project(x, ops::Q8Matrix{w.quants, w.scales})
                                    : backend.project(x, w.compute);
  if (bias != nullptr) backend.add_bias(y, bias->value);
  return y;
}

void take_sublayer(Stream& stream, const Site& site, const Sublayer& f, ops::Backend& backend,
                   InferenceState* state, Sublayer::Kept* kept) {
  const at::Tensor x = stream.read_normed(site, f.norm());
  SublayerContext context{state, site.visit, {}};
  if (kept == nullptr) context.running_rows = stream.running_rows();  // a backward is of all tokens
  stream.write(site, f.run(x, backend, kept, context));
}

void take_sublayer_backward(Stream& stream, const Site& site, const Sublayer& f,
                            ops::Backend& backend, Sublayer::Kept kept) {
  const at::Tensor du = stream.write_backward(site);
  const at::Tensor dx = f.run_backward(du, backend, std::move(kept));
  stream.read_normed_backward(site, f.norm(), dx);
}

Attention::Attention(const ModelConfig& model, const PreNorm& norm, const Weights& weights,
                     std::shared_ptr<ops::RopeRows> rope)
    : Sublayer(norm, present({weights.qkv, weights.out, weights.qkv_bias, weights.out_bias})),
      w_(weights),
      heads_(model.heads),
      kv_heads_(model.kv_heads),
      head_width_(model.head_width()),
      rope_(std::move(rope)) {}

// Without keys and values of earlier tokens where `state` is null; the lse is of such a pass alone.
ops::Attended Attention::attend(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                                ops::Backend& backend, InferenceState* state, int64_t visit) const {
  if (state == nullptr) return backend.attention(qkv, shape, rope_->of(0, shape.length));
  const auto v = static_cast<size_t>(visit);
  // A pass that may be recorded finds all rotations that it can need.
  const int64_t end = backend.steps() != nullptr
                          ? state->capacity
                          : *std::ranges::max_element(state->positions) + shape.length;
  return {backend.cached_attention(
              qkv, shape, rope_->of(0, end),
              {state->keys[v], state->values[v], state->positions, state->device_positions}),
          {}};
}

kernels::AttentionShape Attention::shape_of(const at::Tensor& x) const {
  return {x.size(0), x.size(1), heads_, kv_heads_, head_width_};
}

at::Tensor Attention::run(const at::Tensor& x, ops::Backend& backend, Kept* kept,
                          const SublayerContext& context) const {
  const at::Tensor& rows = context.running_rows;  // the others' keys and values are still needed
  const at::Tensor qkv = product(backend, x.flatten(0, 1), *w_.qkv, w_.qkv_bias);
  const ops::Attended attended = attend(qkv, shape_of(x), backend, context.state, context.visit);
  const at::Tensor u = product(backend, pick_rows(attended.y, rows), *w_.out, w_.out_bias);
  if (kept != nullptr) *kept = {x, qkv, attended.y, attended.lse};
  return put_rows(u, rows, x);
}

at::Tensor Attention::run_backward(const at::Tensor& du, ops::Backend& backend, Kept kept) const {
  const at::Tensor x = std::move(kept[0]);
  const at::Tensor rows = du.flatten(0, 1);
  const ops::Attended attended = {std::move(kept[2]), std::move(kept[3])};
  const at::Tensor dy = backend.project_backward(rows, w_.out->compute);
  backend.add_weight_grad(rows, attended.y, w_.out->value.mutable_grad());
  if (w_.out_bias != nullptr) backend.add_bias_grad(rows, w_.out_bias->value.mutable_grad());
  const at::Tensor dqkv =
      backend.attention_backward(kept[1], attended, dy, shape_of(x), rope_->of(0, x.size(1)));
  backend.add_weight_grad(dqkv, x.flatten(0, 1), w_.qkv->value.mutable_grad());
  if (w_.qkv_bias != nullptr) backend.add_bias_grad(dqkv, w_.qkv_bias->value.mutable_grad());
  return backend.project_backward(dqkv, w_.qkv->compute).view(x.sizes());
}

Mlp::Mlp(const PreNorm& norm, Parameter* gate_up, Parameter* down)
    : Sublayer(norm, {gate_up, down}), gate_up_(gate_up), down_(down) {}

at::Tensor Mlp::run(const at::Tensor& x, ops::Backend& backend, Kept* kept,
                    const SublayerContext& context) const {
  const at::Tensor& rows = context.running_rows;
  const at::Tensor gate_up = product(backend, pick_rows(x, rows), *gate_up_);
  const at::Tensor u = product(backend, backend.swiglu(gate_up), *down_);
  if (kept != nullptr) *kept = {x, gate_up};
  return put_rows(u, rows, x);
}

at::Tensor Mlp::run_backward(const at::Tensor& du, ops::Backend& backend, Kept kept) const {
  const at::Tensor x = std::move(kept[0]), gate_up = std::move(kept[1]);
  const at::Tensor rows = du.flatten(0, 1);
  const at::Tensor hidden = backend.project_backward(rows, down_->compute);
  backend.swiglu_backward(gate_up, hidden);  // now gate_up's gradient, and the hidden activation
  backend.add_weight_grad(rows, hidden, down_->value.mutable_grad());
  backend.add_weight_grad(gate_up, x.flatten(0, 1), gate_up_->value.mutable_grad());
  return backend.project_backward(gate_up, gate_up_->compute).view(x.sizes());
}

}  // namespace wavroute
