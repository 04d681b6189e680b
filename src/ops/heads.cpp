#include "ops/heads.h"

#include <ATen/ATen.h>

namespace wavroute::ops {

at::Tensor rotate(const at::Tensor& x, const RopeTable& rope) {
  const int64_t half = x.size(3) / 2;
  const at::Tensor cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);
  const at::Tensor a = x.narrow(3, 0, half), b = x.narrow(3, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 3).to(x.scalar_type());
}

at::Tensor repeat_heads(const at::Tensor& x, int64_t heads) {
  const int64_t repeats = heads / x.size(1);
  if (repeats == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), repeats, x.size(2), x.size(3)})
      .reshape({x.size(0), heads, x.size(2), x.size(3)});
}

Heads split_heads(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                  const RopeTable& rope) {
  const int64_t turning = shape.heads + shape.kv_heads;
  const at::Tensor all =
      qkv.reshape({shape.batch, shape.length, turning + shape.kv_heads, shape.width});
  const at::Tensor turned = rotate(all.narrow(2, 0, turning), rope);
  const auto heads = [](const at::Tensor& of, int64_t begin, int64_t count) {
    return of.narrow(2, begin, count).transpose(1, 2);
  };
  return {heads(turned, 0, shape.heads), heads(turned, shape.heads, shape.kv_heads),
          heads(all, turning, shape.kv_heads)};
}

at::Tensor causal_attention(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                            const RopeTable& rope) {
  const Heads heads = split_heads(qkv, shape, rope);
  const at::Tensor y = at::scaled_dot_product_attention(
      heads.q, repeat_heads(heads.k, shape.heads), repeat_heads(heads.v, shape.heads), std::nullopt,
      0.0, /*is_causal=*/shape.length > 1);
  return y.transpose(1, 2).reshape({shape.batch * shape.length, shape.heads * shape.width});
}

}  // namespace wavroute::ops
