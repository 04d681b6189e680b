#include "ops/decode.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

// Rows of a weight that a thread takes at once at least: below, handing out costs more.
constexpr int64_t kFewestRows = 64;

// x as float rows.
template <typename C>
at::Tensor widened(Memory& memory, const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat) return x.contiguous();
  const at::Tensor from = x.contiguous();
  at::Tensor wide = memory.empty(x.sizes(), at::kFloat);
  kernels::chosen_kernels().decode->of<C>().widen(in<C>(from), from.numel(), out<float>(wide));
  return wide;
}

// Whether the tokens are the beginning of their sequences, and enough for training's kernel, which
// takes them in blocks.
bool is_whole(const kernels::AttentionShape& shape, const KeyValues& cache) {
  return shape.length >= 8 &&
         std::ranges::all_of(cache.positions, [](int64_t position) { return position == 0; });
}

template <typename T>
kernels::Grids<T> heads_of(const at::Tensor& cache) {
  return {out<T>(cache), cache.stride(1), cache.stride(2)};
}

template <typename C>
void keep(const kernels::CachedAttention<C>& args) {
  const auto kernel = kernels::chosen_kernels().decode->of<C>().keep;
  parallel_for(args.shape.batch * args.shape.length,
               [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

// y of tokens that are kept, of sequences of up to `longest` tokens.
template <typename C>
at::Tensor attend(Memory& memory, kernels::CachedAttention<C> args, at::ScalarType type,
                  int64_t longest) {
  constexpr int64_t kLine = 16;  // floats of a cache line
  const kernels::AttentionShape& shape = args.shape;
  const int64_t tokens = shape.batch * shape.length;
  at::Tensor y = memory.empty({tokens, shape.heads * shape.width}, type);
  args.y = rows_out<C>(y);
  const at::Tensor scratch = memory.empty(
      {at::get_num_threads(), chunk_count(shape.width + longest, kLine) * kLine}, at::kFloat);
  const kernels::Grid<float> own = rows_out<float>(scratch);
  const auto kernel = kernels::chosen_kernels().decode->of<C>().attend;
  parallel_for(tokens * shape.heads,
               [&](int64_t begin, int64_t end) { kernel(args, begin, end, own[thread_index()]); });
  return y;
}

}  // namespace

at::Tensor cached_attention(Memory& memory, const at::Tensor& qkv,
                            const kernels::AttentionShape& shape, const RopeTable& rope,
                            const KeyValues& cache) {
  at::Tensor y;
  with_type(qkv.scalar_type(), [&]<typename C>() {
    kernels::CachedAttention<C> args;
    args.shape = shape;
    args.qkv = rows_in<C>(qkv);
    args.positions = cache.positions.data();
    args.cos = rows_in<float>(rope.cos);
    args.sin = rows_in<float>(rope.sin);
    args.keys = heads_of<C>(cache.keys);
    args.values = heads_of<C>(cache.values);
    keep(args);
    if (is_whole(shape, cache)) {
      y = attention(memory, qkv, shape,
                    {rope.cos.narrow(0, 0, shape.length), rope.sin.narrow(0, 0, shape.length)})
              .y;
    } else {
      y = attend(memory, args, qkv.scalar_type(),
                 *std::ranges::max_element(cache.positions) + shape.length);
    }
  });
  return y;
}

bool are_few(const at::Tensor& x, const at::Tensor& w) {
  const at::ScalarType type = x.scalar_type();
  return x.size(0) > 0 && x.size(0) <= kFewTokens && w.scalar_type() == type && w.stride(1) == 1 &&
         (type == at::kFloat || type == at::kBFloat16);
}

at::Tensor few_products(Memory& memory, const at::Tensor& x, const at::Tensor& w,
                        at::ScalarType type) {
  const int64_t tokens = x.size(0), outputs = w.size(0);
  at::Tensor y = memory.empty({tokens, outputs}, type);
  with_type(x.scalar_type(), [&]<typename C>() {
    const at::Tensor wide = widened<C>(memory, x);
    kernels::TokenProducts<C> args;
    args.inputs = x.size(1);
    args.tokens = tokens;
    args.x = rows_in<float>(wide);
    args.w = rows_in<C>(w);
    if (type == at::kFloat) {
      args.wide_y = rows_out<float>(y);
    } else {
      args.y = rows_out<C>(y);
    }
    const auto kernel = kernels::chosen_kernels().decode->of<C>().products;
    parallel_for(
        outputs, [&](int64_t begin, int64_t end) { kernel(args, begin, end); }, kFewestRows);
  });
  return y;
}

}  // namespace wavroute::ops
