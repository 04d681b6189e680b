// The operators of a sublayer and of the head.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "functional/composed.h"
#include "opbench/operator.h"
#include "ops/arena.h"
#include "ops/cross_entropy.h"
#include "ops/heads.h"
#include "ops/norm.h"
#include "ops/swiglu.h"

namespace wavroute::opbench {
namespace {

constexpr int64_t kHeadWidth = 64, kLongest = 256;
constexpr int64_t kHiddenPerColumn = 4, kLogitsPerColumn = 16;
constexpr double kRopeTheta = 10000.0;

at::Tensor composed_swiglu(const at::Tensor& gate_up) {
  const Tensors halves = gate_up.chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
}

}  // namespace

void show_norm(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  const at::Tensor h = values({p.tokens, p.width});
  const ops::Addend addend{values({p.tokens, p.width}, p.type), {}, 1.0, {}};
  const at::Tensor& u = addend.u;
  const ops::Norm norm{at::ones({p.width}), kNormEps, at::zeros({p.width})};
  const auto composed = [&](const at::Tensor& stream, const at::Tensor& update,
                            const at::Tensor& gain) {
    return functional::composed::add_norm(stream, update, {}, 1.0, gain, kNormEps, p.type);
  };
  const std::string size = rows_by_columns(p.tokens, p.width);
  const ops::Normed normed = ops::add_norm(arena, h, addend, norm, p.type);
  visit({"forward",
         size,
         {[&]() -> Tensors {
           const ops::Normed made = ops::add_norm(arena, h, addend, norm, p.type);
           return {made.h, made.x};
         }},
         {[&]() -> Tensors {
           const at::NoGradGuard no_grad;
           const auto [sum, x, inverse_rms] = composed(h, u, norm.gain);
           return {sum, x};
         }},
         bytes_of({h, u, norm.gain, normed.h, normed.x, normed.inverse_rms})});

  const at::Tensor dx = values({p.tokens, p.width}, p.type), dh = values({p.tokens, p.width});
  const at::Tensor later = dh.clone();
  const at::Tensor sum = leaf(normed.h), gain = leaf(norm.gain);
  const at::Tensor x =
      std::get<1>(functional::composed::add_norm(sum, {}, {}, 1.0, gain, kNormEps, p.type));
  const auto restore = [&] {
    dh.copy_(later);
    norm.gain_grad.zero_();
  };
  // In float the gradient of u is dh itself.
  const double du_bytes = p.type == at::kFloat ? 0 : bytes_of({u});
  visit(
      {"backward",
       size,
       {[&]() -> Tensors {
          const at::Tensor du = ops::add_norm_backward(arena, dx, normed, norm, addend, dh, false);
          return {dh, du, norm.gain_grad};
        },
        restore},
       {[&]() -> Tensors {
          const Tensors grads = gradients({x}, {sum, gain}, {dx});
          dh.add_(grads[0]);
          norm.gain_grad.add_(grads[1]);
          return {dh, dh.to(p.type), norm.gain_grad};
        },
        restore},
       bytes_of({dx, normed.h, normed.inverse_rms, norm.gain, dh, dh, norm.gain_grad}) + du_bytes});
}

void show_swiglu(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  const int64_t hidden = kHiddenPerColumn * p.width;
  const at::Tensor gate_up = values({p.tokens, 2 * hidden}, p.type);
  const at::Tensor da = values({p.tokens, hidden}, p.type);
  const std::string size = rows_by_columns(p.tokens, hidden);
  visit({"forward",
         size,
         {[&]() -> Tensors { return {ops::swiglu(arena, gate_up)}; }},
         {[&]() -> Tensors { return {composed_swiglu(gate_up)}; }},
         bytes_of({gate_up, da})});

  const at::Tensor graph_leaf = leaf(gate_up), a = composed_swiglu(graph_leaf);
  const at::Tensor consumed = gate_up.clone(), consumed_da = da.clone();
  const auto restore = [&] {
    consumed.copy_(gate_up);
    consumed_da.copy_(da);
  };
  visit({"backward",
         size,
         {[&]() -> Tensors {
            ops::swiglu_backward(consumed, consumed_da);
            return {consumed};
          },
          restore},
         {[&] { return gradients({a}, {graph_leaf}, {da}); }, restore},
         bytes_of({gate_up, da, gate_up, da})});
}

void show_attention(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  kernels::AttentionShape shape;
  shape.length = std::min(p.tokens, kLongest);
  shape.batch = p.tokens / shape.length;
  shape.width = kHeadWidth;
  shape.heads = shape.kv_heads = p.width / kHeadWidth;
  const at::Tensor qkv = values({shape.batch * shape.length, shape.row()}, p.type);
  const ops::RopeTable rope = ops::rope_table(0, shape.length, shape.width, kRopeTheta, at::kFloat);
  // Two products over the pairs (query, earlier or same key); the backward counts twice.
  const auto pairs = static_cast<double>(shape.length * (shape.length + 1) / 2);
  const double flops = 2 * 2 * pairs * static_cast<double>(shape.batch * shape.heads * shape.width);
  const std::string size = fmt::format("{} x {}, {} heads", shape.batch, shape.length, shape.heads);
  const ops::Attended attended = ops::attention(arena, qkv, shape, rope);
  visit({"forward",
         size,
         {[&]() -> Tensors { return {ops::attention(arena, qkv, shape, rope).y}; }},
         {[&]() -> Tensors { return {ops::causal_attention(qkv, shape, rope)}; }},
         bytes_of({qkv, attended.y, attended.lse}),
         flops});

  const at::Tensor dy = values(attended.y.sizes(), p.type);
  const at::Tensor graph_leaf = leaf(qkv), y = ops::causal_attention(graph_leaf, shape, rope);
  visit({"backward",
         size,
         {[&]() -> Tensors {
           return {ops::attention_backward(arena, qkv, attended, dy, shape, rope)};
         }},
         {[&] { return gradients({y}, {graph_leaf}, {dy}); }},
         bytes_of({qkv, attended.y, attended.lse, dy, qkv}),
         2 * flops});
}

void show_cross_entropy(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  const int64_t vocabulary = kLogitsPerColumn * p.width;
  const double weight = 1.0 / static_cast<double>(p.tokens);
  const at::Tensor logits = values({p.tokens, vocabulary}, p.type), consumed = logits.clone();
  const at::Tensor targets = at::randint(vocabulary, {p.tokens}, at::kLong);
  const auto restore = [&] { consumed.copy_(logits); };
  visit({"both",
         rows_by_columns(p.tokens, vocabulary),
         {[&]() -> Tensors {
            const double loss = ops::cross_entropy(arena, consumed, targets, weight);
            return {at::scalar_tensor(loss, at::kDouble), consumed};
          },
          restore},
         {[&]() -> Tensors {
            const at::Tensor graph_leaf = leaf(consumed);
            const at::Tensor loss = at::cross_entropy_loss(graph_leaf.to(at::kFloat), targets, {},
                                                           at::Reduction::Sum, ops::kUnscored);
            const Tensors grads = gradients({loss}, {graph_leaf}, {at::full_like(loss, weight)});
            return {at::scalar_tensor(loss.item<float>(), at::kDouble), grads[0]};
          },
          restore},
         bytes_of({logits, logits, targets})});
}

}  // namespace wavroute::opbench
