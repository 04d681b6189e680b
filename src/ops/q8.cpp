#include "ops/q8.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

static_assert(kQ8Block == kernels::kQ8Block);

// Rows of a weight that a thread takes at once at least: below, handing out costs more.
constexpr int64_t kFewestRows = 64;
// Tokens whose blocks stay in the L2 cache beside some rows of a weight.
constexpr int64_t kTokensAtOnce = 256;

void quantise(const at::Tensor& matrix, const Q8Matrix& to) {
  const at::Tensor from = matrix.detach().to(at::kFloat).contiguous();
  const int64_t columns = from.size(1);
  const kernels::Grid<const float> source = rows_in<float>(from);
  const kernels::Grid<int8_t> quants = rows_out<int8_t>(to.quants);
  const kernels::Grid<uint16_t> scales = rows_out<uint16_t>(to.scales);
  const auto kernel = kernels::chosen_kernels().q8->quantise;
  parallel_for(from.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernel({columns, source[row], quants[row], scales[row]});
    }
  });
}

// The tokens' side of a product.
struct Q8Tokens {
  at::Tensor quants, scales;  // [n, k] int8, [n, k / 32] float
};

template <typename C>
Q8Tokens rounded(Memory& memory, const at::Tensor& x) {
  const int64_t tokens = x.size(0), columns = x.size(1);
  Q8Tokens result{memory.empty({tokens, columns}, at::kChar),
                  memory.empty({tokens, columns / kQ8Block}, at::kFloat)};
  const at::Tensor from = x.contiguous();
  const kernels::Q8Tokens<C> args = {columns, rows_in<C>(from), rows_out<int8_t>(result.quants),
                                     rows_out<float>(result.scales)};
  const auto kernel = kernels::chosen_kernels().q8->by_type.of<C>().round_tokens;
  parallel_for(tokens, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  return result;
}

}  // namespace

std::vector<Q8Matrix> quantise(std::span<const at::Tensor> matrices) {
  int64_t total = 0;
  for (const at::Tensor& matrix : matrices) {
    TORCH_CHECK(matrix.size(1) % kQ8Block == 0, "expected columns in blocks of 32, got ",
                matrix.size(1));
    total += matrix.numel();
  }
  const at::Tensor quants = empty_huge({total}, at::kChar),
                   scales = empty_huge({total / kQ8Block}, at::kShort);
  std::vector<Q8Matrix> results;
  int64_t begin = 0;
  for (const at::Tensor& matrix : matrices) {
    const int64_t rows = matrix.size(0), blocks = matrix.size(1) / kQ8Block;
    const Q8Matrix& to = results.emplace_back(
        Q8Matrix{quants.narrow(0, begin, matrix.numel()).view(matrix.sizes()),
                 scales.narrow(0, begin / kQ8Block, rows * blocks).view({rows, blocks})});
    quantise(matrix, to);
    begin += matrix.numel();
  }
  return results;
}

Q8Matrix quantise(const at::Tensor& matrix) { return quantise(std::span(&matrix, 1))[0]; }

at::Tensor q8_products(Memory& memory, const at::Tensor& x, const Q8Matrix& w,
                       at::ScalarType type) {
  const int64_t tokens = x.size(0), outputs = w.quants.size(0);
  at::Tensor y = memory.empty({tokens, outputs}, type);
  with_type(x.scalar_type(), [&]<typename C>() {
    const Q8Tokens all = rounded<C>(memory, x);
    const auto kernel = kernels::chosen_kernels().q8->by_type.of<C>().products;
    for (int64_t first = 0; first < tokens; first += kTokensAtOnce) {
      kernels::Q8Products<C> args;
      args.inputs = x.size(1);
      args.tokens = std::min(kTokensAtOnce, tokens - first);
      args.x = rows_in<int8_t>(all.quants).from(first);
      args.x_scales = rows_in<float>(all.scales).from(first);
      args.w = {rows_in<int8_t>(w.quants), rows_in<uint16_t>(w.scales)};
      if (type == at::kFloat) {
        args.wide_y = rows_out<float>(y).from(first);
      } else {
        args.y = rows_out<C>(y).from(first);
      }
      parallel_for(
          outputs, [&](int64_t begin, int64_t end) { kernel(args, begin, end); }, kFewestRows);
    }
  });
  return y;
}

at::Tensor rounded_to_blocks(const at::Tensor& x) {
  const at::Tensor blocks = x.to(at::kFloat).unflatten(-1, {-1, kQ8Block});
  const at::Tensor largest = blocks.abs().amax(-1, /*keepdim=*/true);
  const at::Tensor quants =
      (blocks * (at::full_like(largest, 127.0) / largest)).round() * (largest / 127.0);
  return quants.masked_fill(largest < 0x1p-100, 0.0).flatten(-2);
}

at::Tensor dequantised(const Q8Matrix& matrix) {
  const int64_t rows = matrix.scales.size(0), blocks = matrix.scales.size(1);
  const at::Tensor scales = matrix.scales.view(at::kHalf).to(at::kFloat).unsqueeze(2);
  return (matrix.quants.view({rows, blocks, kQ8Block}).to(at::kFloat) * scales)
      .view({rows, blocks * kQ8Block});
}

}  // namespace wavroute::ops
