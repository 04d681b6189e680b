// Attention of the back end `cuda`: our rotation in place, then libtorch's kernels over heads.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "kernels/cuda/heads.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/heads.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

namespace cuda = kernels::cuda;
using kernels::AttentionShape;

constexpr int64_t kMostCachedWidth = 256;  // of a head

// Queries, keys and values of qkv [B T, (H + 2 G) w], each [B,T,heads,w], in its memory.
struct HeadViews {
  at::Tensor q, k, v;
};
HeadViews views_of(const at::Tensor& qkv, const AttentionShape& shape) {
  const at::Tensor all =
      qkv.view({shape.batch, shape.length, shape.heads + 2 * shape.kv_heads, shape.width});
  return {all.narrow(2, 0, shape.heads), all.narrow(2, shape.heads, shape.kv_heads),
          all.narrow(2, shape.heads + shape.kv_heads, shape.kv_heads)};
}

// Heads [B,T,heads,w] as the kernels take them.
template <typename C>
cuda::Heads<C> heads_of(const at::Tensor& x) {
  return {out<std::remove_const_t<C>>(x), x.stride(0), x.stride(1), x.stride(2)};
}

// Turns queries and keys by their positions on the way `from` one place `to` another; values go
// along where `from` has them.
template <typename C>
cuda::RotateHeads<C> rotation(const AttentionShape& shape, const RopeTable& rope,
                              const HeadViews& from, const HeadViews& to) {
  cuda::RotateHeads<C> args;
  args.shape = shape;
  args.query = heads_of<const C>(from.q);
  args.key = heads_of<const C>(from.k);
  args.query_to = heads_of<C>(to.q);
  args.key_to = heads_of<C>(to.k);
  if (from.v.defined()) {
    args.value = heads_of<const C>(from.v);
    args.value_to = heads_of<C>(to.v);
  }
  args.cos = in<float>(rope.cos);
  args.sin = in<float>(rope.sin);
  return args;
}

// On libtorch's operators for any type, differentiable.
at::Tensor stock_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t heads = q.size(2);
  return at::scaled_dot_product_attention(q.transpose(1, 2), repeat_heads(k.transpose(1, 2), heads),
                                          repeat_heads(v.transpose(1, 2), heads), std::nullopt, 0.0,
                                          /*is_causal=*/q.size(1) > 1)
      .transpose(1, 2);
}

FlashGrads stock_attention_backward(const HeadViews& heads, const at::Tensor& dy) {
  const at::AutoGradMode with_grad(true);
  const auto leaf = [](const at::Tensor& x) { return x.detach().set_requires_grad(true); };
  const at::Tensor q = leaf(heads.q), k = leaf(heads.k), v = leaf(heads.v);
  const auto grads = torch::autograd::grad({stock_attention(q, k, v)}, {q, k, v}, {dy});
  return {grads[0], grads[1], grads[2]};
}

at::Tensor with_adjacent_numbers(const at::Tensor& x) {
  return x.stride(3) == 1 ? x : x.contiguous();
}

}  // namespace

Attended CudaBackend::attention(const at::Tensor& qkv, const AttentionShape& shape,
                                const RopeTable& rope) {
  const HeadViews heads = views_of(qkv, shape);
  with_type(qkv.scalar_type(), [&]<typename C>() {
    const HeadViews in_place = {heads.q, heads.k, {}};  // values stay as they are
    cuda::rotate_heads(rotation<C>(shape, rope, in_place, in_place), stream());
  });
  const std::vector<int64_t> rows = {shape.batch * shape.length, shape.heads * shape.width};
  if (qkv.numel() == 0 || !gpu_->has_flash(shape.width, qkv.scalar_type())) {
    return {stock_attention(heads.q, heads.k, heads.v).reshape(rows), {}};
  }
  const FlashResult result = gpu_->flash_attention(heads.q, heads.k, heads.v);
  return {result.y.reshape(rows), result.lse};
}

at::Tensor CudaBackend::attention_backward(const at::Tensor& qkv, const Attended& forward,
                                           const at::Tensor& dy, const AttentionShape& shape,
                                           const RopeTable& rope) {
  const HeadViews heads = views_of(qkv, shape);  // rotated
  const std::vector<int64_t> sizes = {shape.batch, shape.length, shape.heads, shape.width};
  const at::Tensor grad = dy.reshape(sizes);
  FlashGrads grads = forward.lse.defined() ? gpu_->flash_attention_backward(
                                                 heads.q, heads.k, heads.v,
                                                 {forward.y.view(sizes), forward.lse}, grad)
                                           : stock_attention_backward(heads, grad);
  for (at::Tensor* part : {&grads.q, &grads.k, &grads.v}) *part = with_adjacent_numbers(*part);
  at::Tensor dqkv = memory_.empty_like(qkv);
  const HeadViews to = views_of(dqkv, shape);
  with_type(qkv.scalar_type(), [&]<typename C>() {
    cuda::RotateHeads<C> args = rotation<C>(shape, rope, {grads.q, grads.k, grads.v}, to);
    args.back = true;
    cuda::rotate_heads(args, stream());
  });
  return dqkv;
}

at::Tensor CudaBackend::positions_of(const KeyValues& cache) {
  if (!std::ranges::equal(positions_, cache.positions)) {
    positions_.assign(cache.positions.begin(), cache.positions.end());
    device_positions_ = at::tensor(positions_, at::kLong).to(gpu_->device());
  }
  return device_positions_;
}

at::Tensor CudaBackend::cached_attention(const at::Tensor& qkv, const AttentionShape& shape,
                                         const RopeTable& rope, const KeyValues& cache) {
  const bool is_recorded = cache.device_positions.defined();
  if (shape.length > kFewTokens || shape.width > kMostCachedWidth) {
    TORCH_CHECK(!is_recorded, "attention over a cache of heads of more than ", kMostCachedWidth,
                " numbers takes its length from the host");
    return composed_->cached_attention(qkv, shape, rope, cache);
  }
  const HeadViews heads = views_of(qkv, shape);
  // [B, G, capacity, w] as heads by position.
  const at::Tensor keys = cache.keys.transpose(1, 2), values = cache.values.transpose(1, 2);
  const at::Tensor positions = is_recorded ? cache.device_positions : positions_of(cache);
  const int64_t most =
      is_recorded ? cache.keys.size(2) : std::ranges::max(cache.positions) + shape.length;
  const at::Tensor scratch = floats(cuda::cached_attention_floats(shape, most));
  at::Tensor y =
      memory_.empty({shape.batch * shape.length, shape.heads * shape.width}, qkv.scalar_type());
  with_type(qkv.scalar_type(), [&]<typename C>() {
    cuda::RotateHeads<C> turn = rotation<C>(shape, rope, heads, {heads.q, keys, values});
    turn.positions = in<int64_t>(positions);
    cuda::rotate_heads(turn, stream());
    cuda::CachedAttention<C> args;
    args.shape = shape;
    args.query = heads_of<const C>(heads.q);
    args.key = heads_of<const C>(keys);
    args.value = heads_of<const C>(values);
    args.positions = turn.positions;
    args.most = most;
    args.y = heads_of<C>(y.view({shape.batch, shape.length, shape.heads, shape.width}));
    args.scratch = out<float>(scratch);
    cuda::cached_attention(args, stream());
  });
  return y;
}

}  // namespace wavroute::ops
