#include "model/sublayer.h"

#include <ATen/ATen.h>

#include "ops/heads.h"

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

// Undefined without a parameter.
at::Tensor value_of(const Parameter* parameter) {
  return parameter == nullptr ? at::Tensor() : parameter->value;
}

// x w^T + bias: vectors are of the storage type, which may be wider than x's.
at::Tensor linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias) {
  const at::Tensor y = at::linear(x, w);
  return bias.defined() ? (y + bias).to(y.scalar_type()) : y;
}

at::Tensor pick_rows(const at::Tensor& x, const at::Tensor& rows) {
  return x.flatten(0, 1).index_select(0, rows);
}

}  // namespace

void take_sublayer(Stream& stream, const Site& site, const Sublayer& f, ops::Backend& backend,
                   InferenceState* state, Sublayer::Kept* kept) {
  const at::Tensor x = stream.read_normed(site, f.norm());
  SublayerContext context{state, site.visit, {}};
  if (kept == nullptr) context.running_rows = stream.running_rows();  // a backward is of all tokens
  stream.write(site, context.is_whole() ? f.run(x, backend, kept) : f.forward(x, context));
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

// Queries, keys and values [B, T, (heads + 2 kv_heads) * head width]; queries only of `rows`.
at::Tensor Attention::project(const at::Tensor& x, const at::Tensor& rows) const {
  const at::Tensor& weight = w_.qkv->compute;
  const at::Tensor bias = value_of(w_.qkv_bias);
  if (!rows.defined()) return linear(x, weight, bias);
  const int64_t split = heads_ * head_width_, rest = weight.size(0) - split;
  const auto part = [&](int64_t first, int64_t count) {
    return bias.defined() ? bias.narrow(0, first, count) : bias;
  };
  const at::Tensor kv = linear(x, weight.narrow(0, split, rest), part(split, rest));
  const at::Tensor q = linear(pick_rows(x, rows), weight.narrow(0, 0, split), part(0, split));
  const at::Tensor all = scatter_rows(q, rows, x.size(0) * x.size(1));
  return at::cat({all.view({x.size(0), x.size(1), split}), kv}, -1);
}

// q [B,heads,T,width], k and v [B,kv_heads,T,width] -> [B,T,heads * width]
at::Tensor Attention::attend(const at::Tensor& q, at::Tensor k, at::Tensor v,
                             const SublayerContext& context) const {
  const int64_t length = q.size(2);
  std::optional<at::Tensor> mask;
  bool causal = true;
  if (InferenceState* state = context.state; state != nullptr) {
    const auto visit = static_cast<size_t>(context.visit);
    const int64_t end = state->position + length;
    state->keys[visit].narrow(2, state->position, length).copy_(k);
    state->values[visit].narrow(2, state->position, length).copy_(v);
    k = state->keys[visit].narrow(2, 0, end);
    v = state->values[visit].narrow(2, 0, end);
    causal = state->position == 0;
    if (!causal && length > 1) {
      mask = at::ones({length, end}, q.options().dtype(at::kBool)).tril(state->position);
    }
  }
  const at::Tensor y = at::scaled_dot_product_attention(q, ops::repeat_heads(k, heads_),
                                                        ops::repeat_heads(v, heads_), mask, 0.0,
                                                        causal && length > 1);
  return y.transpose(1, 2).reshape({q.size(0), length, heads_ * head_width_});
}

at::Tensor Attention::forward(const at::Tensor& x, const SublayerContext& context) const {
  const at::Tensor& rows = context.running_rows;
  const int64_t first = context.state != nullptr ? context.state->position : 0;
  const ops::Heads heads =
      ops::split_heads(project(x, rows), shape_of(x), rope_->of(first, x.size(1)));
  const at::Tensor y = attend(heads.q, heads.k, heads.v, context);
  const at::Tensor bias = value_of(w_.out_bias);
  if (!rows.defined()) return linear(y, w_.out->compute, bias);
  const at::Tensor u = linear(pick_rows(y, rows), w_.out->compute, bias);
  return scatter_rows(u, rows, x.size(0) * x.size(1)).view(x.sizes());
}

kernels::AttentionShape Attention::shape_of(const at::Tensor& x) const {
  return {x.size(0), x.size(1), heads_, kv_heads_, head_width_};
}

at::Tensor Attention::run(const at::Tensor& x, ops::Backend& backend, Kept* kept) const {
  const at::Tensor qkv = backend.project(x.flatten(0, 1), w_.qkv->compute);
  if (w_.qkv_bias != nullptr) backend.add_bias(qkv, w_.qkv_bias->value);
  const ops::Attended attended = backend.attention(qkv, shape_of(x), rope_->of(0, x.size(1)));
  const at::Tensor u = backend.project(attended.y, w_.out->compute);
  if (w_.out_bias != nullptr) backend.add_bias(u, w_.out_bias->value);
  if (kept != nullptr) *kept = {x, qkv, attended.y, attended.lse};
  return u.view(x.sizes());
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

at::Tensor Mlp::forward(const at::Tensor& x, const SublayerContext& context) const {
  const at::Tensor& rows = context.running_rows;
  const at::Tensor chosen = rows.defined() ? pick_rows(x, rows) : x;
  const std::vector<at::Tensor> gate_up = at::linear(chosen, gate_up_->compute).chunk(2, -1);
  const at::Tensor u = at::linear(at::silu(gate_up[0]) * gate_up[1], down_->compute);
  if (!rows.defined()) return u;
  return scatter_rows(u, rows, x.size(0) * x.size(1)).view(x.sizes());
}

at::Tensor Mlp::run(const at::Tensor& x, ops::Backend& backend, Kept* kept) const {
  const at::Tensor gate_up = backend.project(x.flatten(0, 1), gate_up_->compute);
  const at::Tensor u = backend.project(backend.swiglu(gate_up), down_->compute);
  if (kept != nullptr) *kept = {x, gate_up};
  return u.view(x.sizes());
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
