#include "model/sublayer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "ops/products.h"
#include "ops/swiglu.h"

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

// k or v [B, kv_heads, T, width] repeated so that query head h uses head floor(h kv_heads / heads).
at::Tensor repeat_heads(const at::Tensor& x, int64_t heads) {
  const int64_t repeats = heads / x.size(1);
  if (repeats == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), repeats, x.size(2), x.size(3)})
      .reshape({x.size(0), heads, x.size(2), x.size(3)});
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, const ops::RopeTable& rope) {
  const int64_t half = x.size(3) / 2;
  const at::Tensor cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);
  const at::Tensor a = x.narrow(3, 0, half), b = x.narrow(3, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 3).to(x.scalar_type());
}

Attention::Attention(const ModelConfig& model, const PreNorm& norm, Parameter* qkv, Parameter* out,
                     std::shared_ptr<ops::RopeRows> rope)
    : Sublayer(norm, {qkv, out}),
      qkv_(qkv),
      out_(out),
      heads_(model.heads),
      kv_heads_(model.kv_heads),
      head_width_(model.width / model.heads),
      rope_(std::move(rope)) {}

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

at::Tensor Attention::forward(const at::Tensor& x, const SublayerContext& context) const {
  const int64_t batch = x.size(0), length = x.size(1);
  const at::Tensor& rows = context.running_rows;
  const at::Tensor qkv =
      project(x, rows).view({batch, length, heads_ + 2 * kv_heads_, head_width_});
  const int64_t first = context.state != nullptr ? context.state->position : 0;
  const at::Tensor turned = rotate(qkv.narrow(2, 0, heads_ + kv_heads_), rope_->of(first, length));
  const auto heads_of = [](const at::Tensor& x, int64_t begin, int64_t count) {
    return x.narrow(2, begin, count).transpose(1, 2);
  };
  const at::Tensor y = attend(heads_of(turned, 0, heads_), heads_of(turned, heads_, kv_heads_),
                              heads_of(qkv, heads_ + kv_heads_, kv_heads_), context);
  if (!rows.defined()) return at::linear(y, out_->compute);
  const at::Tensor u = at::linear(pick_rows(y, rows), out_->compute);
  return scatter_rows(u, rows, batch * length).view(x.sizes());
}

kernels::AttentionShape Attention::shape_of(const at::Tensor& x) const {
  return {x.size(0), x.size(1), heads_, kv_heads_, head_width_};
}

at::Tensor Attention::run(const at::Tensor& x, ops::Arena& arena, Kept* kept) const {
  const at::Tensor rows = x.flatten(0, 1);
  const at::Tensor qkv = ops::project(arena, rows, qkv_->compute);
  const ops::Attended attended = ops::attention(arena, qkv, shape_of(x), rope_->of(0, x.size(1)));
  const at::Tensor u = ops::project(arena, attended.y, out_->compute);
  if (kept != nullptr) *kept = {x, qkv, attended.y, attended.lse};
  return u.view(x.sizes());
}

at::Tensor Attention::run_backward(const at::Tensor& du, ops::Arena& arena, Kept kept) const {
  const at::Tensor x = std::move(kept[0]);
  const at::Tensor rows = du.flatten(0, 1);
  const ops::Attended attended = {std::move(kept[2]), std::move(kept[3])};
  const at::Tensor dy = ops::project_backward(arena, rows, out_->compute);
  ops::add_weight_grad(arena, rows, attended.y, out_->value.mutable_grad());
  const at::Tensor dqkv =
      ops::attention_backward(arena, kept[1], attended, dy, shape_of(x), rope_->of(0, x.size(1)));
  ops::add_weight_grad(arena, dqkv, x.flatten(0, 1), qkv_->value.mutable_grad());
  return ops::project_backward(arena, dqkv, qkv_->compute).view(x.sizes());
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

at::Tensor Mlp::run(const at::Tensor& x, ops::Arena& arena, Kept* kept) const {
  const at::Tensor gate_up = ops::project(arena, x.flatten(0, 1), gate_up_->compute);
  const at::Tensor u = ops::project(arena, ops::swiglu(arena, gate_up), down_->compute);
  if (kept != nullptr) *kept = {x, gate_up};
  return u.view(x.sizes());
}

at::Tensor Mlp::run_backward(const at::Tensor& du, ops::Arena& arena, Kept kept) const {
  const at::Tensor x = std::move(kept[0]), gate_up = std::move(kept[1]);
  const at::Tensor rows = du.flatten(0, 1);
  const at::Tensor hidden = ops::project_backward(arena, rows, down_->compute);
  ops::swiglu_backward(gate_up, hidden);  // now gate_up's gradient, and the hidden activation
  ops::add_weight_grad(arena, rows, hidden, down_->value.mutable_grad());
  ops::add_weight_grad(arena, gate_up, x.flatten(0, 1), gate_up_->value.mutable_grad());
  return ops::project_backward(arena, gate_up, gate_up_->compute).view(x.sizes());
}

}  // namespace wavroute
