#include "ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

// One row of scratch for each thread.
template <typename C>
at::Tensor scratch_for(Memory& memory, const kernels::AttentionShape& shape) {
  constexpr int64_t kLine = 16;  // floats of a cache line
  const int64_t floats = kernels::chosen_kernels().attention->of<C>().scratch_floats(shape);
  return memory.empty({at::get_num_threads(), (floats + kLine - 1) / kLine * kLine}, at::kFloat);
}

// Runs kernel(args, begin, end, scratch) over the units of `shape`.
template <typename Args, typename Kernel>
void run_units(const Args& args, const Kernel& kernel, const at::Tensor& scratch) {
  float* const all = out<float>(scratch);
  const int64_t floats = scratch.size(1);
  parallel_for(args.shape.batch * args.shape.kv_heads, [&](int64_t begin, int64_t end) {
    kernel(args, begin, end, all + thread_index() * floats);
  });
}

}  // namespace

at::Tensor rope_frequencies(int64_t width, double theta) {
  const int64_t half = width / 2;
  return at::pow(theta, at::arange(half, at::TensorOptions(at::kDouble)).div(-half));
}

RopeTable rope_table(int64_t first, int64_t length, const at::Tensor& frequency, double scale,
                     const at::TensorOptions& options) {
  const at::TensorOptions wide = at::kDouble;
  const at::Tensor angle = at::arange(first, first + length, wide).view({length, 1}) * frequency;
  at::Tensor cos = angle.cos(), sin = angle.sin();
  if (scale != 1.0) {
    cos.mul_(scale);
    sin.mul_(scale);
  }
  return {cos.to(options), sin.to(options)};
}

RopeTable rope_table(int64_t first, int64_t length, int64_t width, double theta,
                     const at::TensorOptions& options) {
  return rope_table(first, length, rope_frequencies(width, theta), 1.0, options);
}

Attended attention(Memory& memory, const at::Tensor& qkv, const kernels::AttentionShape& shape,
                   const RopeTable& rope) {
  Attended result;
  result.y =
      memory.empty({shape.batch * shape.length, shape.heads * shape.width}, qkv.scalar_type());
  result.lse = memory.empty({shape.batch, shape.heads, shape.length}, at::kFloat);
  with_type(qkv.scalar_type(), [&]<typename C>() {
    kernels::Attention<C> args;
    args.shape = shape;
    args.qkv = in<C>(qkv);
    args.cos = in<float>(rope.cos);
    args.sin = in<float>(rope.sin);
    args.y = out<C>(result.y);
    args.lse = out<float>(result.lse);
    run_units(args, kernels::chosen_kernels().attention->of<C>().forward,
              scratch_for<C>(memory, shape));
  });
  return result;
}

at::Tensor attention_backward(Memory& memory, const at::Tensor& qkv, const Attended& forward,
                              const at::Tensor& dy, const kernels::AttentionShape& shape,
                              const RopeTable& rope) {
  at::Tensor dqkv = memory.empty_like(qkv);
  with_type(qkv.scalar_type(), [&]<typename C>() {
    kernels::AttentionBackward<C> args;
    args.shape = shape;
    args.qkv = in<C>(qkv);
    args.cos = in<float>(rope.cos);
    args.sin = in<float>(rope.sin);
    args.y = in<C>(forward.y);
    args.dy = in<C>(dy);
    args.lse = in<float>(forward.lse);
    args.dqkv = out<C>(dqkv);
    run_units(args, kernels::chosen_kernels().attention->of<C>().backward,
              scratch_for<C>(memory, shape));
  });
  return dqkv;
}

}  // namespace wavroute::ops
