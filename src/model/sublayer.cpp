#include "model/sublayer.h"

#include <ATen/ATen.h>

#include <cmath>

namespace wavroute {
namespace {

// `part` [n, width] as rows of a zero tensor like `whole_rows` rows.
at::Tensor scatter_rows(const at::Tensor& part, const at::Tensor& rows, int64_t whole_rows) {
  at::Tensor whole = at::zeros({whole_rows, part.size(-1)}, part.options());
  return whole.index_copy_(0, rows, part);
}

at::Tensor pick_rows(const at::Tensor& x, const at::Tensor& rows) {
  return x.flatten(0, 1).index_select(0, rows);
}

// k or v [B, kv_heads, T, width] repeated so that query head h meets head floor(h kv_heads /
// heads).
at::Tensor repeat_heads(const at::Tensor& x, int64_t heads) {
  const int64_t repeats = heads / x.size(1);
  if (repeats == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), repeats, x.size(2), x.size(3)})
      .reshape({x.size(0), heads, x.size(2), x.size(3)});
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, int64_t first, double theta) {
  const int64_t length = x.size(1), half = x.size(3) / 2;
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = at::TensorOptions().dtype(at::kDouble).device(x.device());
  const at::Tensor frequency = at::pow(theta, at::arange(half, options).div(-half));
  const at::Tensor angle =
      at::arange(first, first + length, options).view({length, 1, 1}) * frequency;
  const at::Tensor cos = angle.cos().to(wide), sin = angle.sin().to(wide);
  const at::Tensor a = x.narrow(3, 0, half), b = x.narrow(3, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 3).to(x.scalar_type());
}

Sublayer::Sublayer(Parameter* gain, double eps, at::ScalarType compute)
    : gain_(gain), eps_(eps), compute_(compute) {
  if (gain_ != nullptr) parameters_.push_back(gain_);
}

at::Tensor Sublayer::normalised(const at::Tensor& h) const {
  if (gain_ == nullptr) return h.to(compute_);
  return at::rms_norm(h, gain_->value.sizes(), gain_->value, eps_).to(compute_);
}

Attention::Attention(const ModelConfig& model, Parameter* gain, Parameter* qkv, Parameter* out,
                     at::ScalarType compute)
    : Sublayer(gain, model.rms_norm_eps, compute),
      qkv_(qkv),
      out_(out),
      heads_(model.heads),
      kv_heads_(model.kv_heads),
      head_width_(model.width / model.heads),
      theta_(model.rope_theta) {
  parameters_.insert(parameters_.end(), {qkv, out});
}

// Queries, keys and values [B, T, (heads + 2 kv_heads) * head width]; queries only of `rows`.
at::Tensor Attention::project(const at::Tensor& x, const at::Tensor& rows) const {
  if (!rows.defined()) return at::linear(x, qkv_->compute);
  const int64_t split = heads_ * head_width_;
  const at::Tensor& weight = qkv_->compute;
  const at::Tensor kv = at::linear(x, weight.narrow(0, split, weight.size(0) - split));
  const at::Tensor q = at::linear(pick_rows(x, rows), weight.narrow(0, 0, split));
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
  const at::Tensor y = at::scaled_dot_product_attention(
      q, repeat_heads(k, heads_), repeat_heads(v, heads_), mask, 0.0, causal && length > 1);
  return y.transpose(1, 2).reshape({q.size(0), length, heads_ * head_width_});
}

at::Tensor Attention::forward(const at::Tensor& h, const SublayerContext& context) const {
  const int64_t batch = h.size(0), length = h.size(1);
  const at::Tensor& rows = context.running_rows;
  const at::Tensor qkv =
      project(normalised(h), rows).view({batch, length, heads_ + 2 * kv_heads_, head_width_});
  const int64_t first = context.state != nullptr ? context.state->position : 0;
  const at::Tensor turned = rotate(qkv.narrow(2, 0, heads_ + kv_heads_), first, theta_);
  const auto heads_of = [](const at::Tensor& x, int64_t begin, int64_t count) {
    return x.narrow(2, begin, count).transpose(1, 2);
  };
  const at::Tensor y = attend(heads_of(turned, 0, heads_), heads_of(turned, heads_, kv_heads_),
                              heads_of(qkv, heads_ + kv_heads_, kv_heads_), context);
  if (!rows.defined()) return at::linear(y, out_->compute);
  const at::Tensor u = at::linear(pick_rows(y, rows), out_->compute);
  return scatter_rows(u, rows, batch * length).view(h.sizes());
}

Mlp::Mlp(const ModelConfig& model, Parameter* gain, Parameter* gate_up, Parameter* down,
         at::ScalarType compute)
    : Sublayer(gain, model.rms_norm_eps, compute), gate_up_(gate_up), down_(down) {
  parameters_.insert(parameters_.end(), {gate_up, down});
}

at::Tensor Mlp::forward(const at::Tensor& h, const SublayerContext& context) const {
  const at::Tensor& rows = context.running_rows;
  const at::Tensor x = normalised(rows.defined() ? pick_rows(h, rows) : h);
  const std::vector<at::Tensor> gate_up = at::linear(x, gate_up_->compute).chunk(2, -1);
  const at::Tensor u = at::linear(at::silu(gate_up[0]) * gate_up[1], down_->compute);
  if (!rows.defined()) return u;
  return scatter_rows(u, rows, h.size(0) * h.size(1)).view(h.sizes());
}

}  // namespace wavroute
