#include "ops/decode.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

static_assert(kQ8Block == kernels::kQ8Block);

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

// product(arguments, begin, end) over the rows of w, for groups of tokens that a kernel takes.
template <typename C, typename W, typename Kernel>
void run_products(const at::Tensor& wide, const W& w, const at::Tensor& y, const Kernel& kernel) {
  const int64_t tokens = wide.size(0), outputs = y.size(1);
  for (int64_t first = 0; first < tokens; first += kernels::kMostTokens) {
    const kernels::TokenProducts<C, W> args = {
        wide.size(1), std::min(kernels::kMostTokens, tokens - first),
        rows_in<float>(wide).from(first), w, rows_out<C>(y).from(first)};
    parallel_for(
        outputs, [&](int64_t begin, int64_t end) { kernel(args, begin, end); }, kFewestRows);
  }
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
  parallel_for(tokens * shape.kv_heads,
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

at::Tensor few_products(Memory& memory, const at::Tensor& x, const at::Tensor& w) {
  at::Tensor y = memory.empty({x.size(0), w.size(0)}, x.scalar_type());
  with_type(x.scalar_type(), [&]<typename C>() {
    run_products<C>(widened<C>(memory, x), rows_in<C>(w), y,
                    kernels::chosen_kernels().decode->of<C>().products);
  });
  return y;
}

Q8Matrix quantise(const at::Tensor& matrix) {
  const at::Tensor from = matrix.detach().to(at::kFloat).contiguous();
  const int64_t rows = from.size(0), columns = from.size(1);
  TORCH_CHECK(columns % kQ8Block == 0, "expected columns in blocks of 32, got ", columns);
  Q8Matrix result{at::empty({rows, columns}, at::kChar),
                  at::empty({rows, columns / kQ8Block}, at::kShort)};
  const kernels::Grid<const float> source = rows_in<float>(from);
  const kernels::Grid<int8_t> quants = rows_out<int8_t>(result.quants);
  const kernels::Grid<uint16_t> scales = rows_out<uint16_t>(result.scales);
  const auto kernel = kernels::chosen_kernels().q8->quantise;
  parallel_for(rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernel({columns, source[row], quants[row], scales[row]});
    }
  });
  return result;
}

at::Tensor q8_products(Memory& memory, const at::Tensor& x, const Q8Matrix& w) {
  at::Tensor y = memory.empty({x.size(0), w.quants.size(0)}, x.scalar_type());
  const kernels::Q8Rows rows = {rows_in<int8_t>(w.quants), rows_in<uint16_t>(w.scales)};
  with_type(x.scalar_type(), [&]<typename C>() {
    run_products<C>(widened<C>(memory, x), rows, y,
                    kernels::chosen_kernels().decode->of<C>().q8_products);
  });
  return y;
}

at::Tensor dequantised(const Q8Matrix& matrix) {
  const int64_t rows = matrix.scales.size(0), blocks = matrix.scales.size(1);
  const at::Tensor scales = matrix.scales.view(at::kHalf).to(at::kFloat).unsqueeze(2);
  return (matrix.quants.view({rows, blocks, kQ8Block}).to(at::kFloat) * scales)
      .view({rows, blocks * kQ8Block});
}

}  // namespace wavroute::ops
