// The operators of decoding.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "opbench/operator.h"
#include "ops/arena.h"
#include "ops/backend.h"
#include "ops/decode.h"
#include "ops/q8.h"

namespace wavroute::opbench {
namespace {

constexpr int64_t kHeadWidth = 64;
constexpr int64_t kRowsPerToken = 256;  // of a matrix, so that it doesn't stay in the caches
constexpr double kRopeTheta = 10000.0;

std::string size_of(int64_t tokens, int64_t rows, int64_t columns) {
  return fmt::format("{} by {}", tokens, rows_by_columns(rows, columns));
}

}  // namespace

void show_few_products(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  const int64_t rows = kRowsPerToken * p.tokens;
  const at::Tensor w = ops::empty_huge({rows, p.width}, p.type).copy_(values({rows, p.width}));
  for (const int64_t tokens : {int64_t{1}, ops::kFewTokens}) {
    const at::Tensor x = values({tokens, p.width}, p.type);
    visit(
        {"forward",
         size_of(tokens, rows, p.width),
         {[&]() -> Tensors { return {ops::few_products(arena, x, w, x.scalar_type())}; }},
         {[&]() -> Tensors { return {at::linear(x, w)}; }},
         bytes_of({x, w}) + static_cast<double>(tokens * rows) * static_cast<double>(w.itemsize()),
         /*flops=*/0,
         /*reads=*/true});
  }
}

// The composed form has the numbers of the blocks in float.
void show_q8_products(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  const int64_t rows = kRowsPerToken * p.tokens;
  const ops::Q8Matrix w = ops::quantise(values({rows, p.width}));
  const at::Tensor numbers = ops::dequantised(w);
  for (const int64_t tokens : {int64_t{1}, ops::kFewTokens}) {
    const at::Tensor x = values({tokens, p.width}, p.type);
    visit(
        {"forward",
         size_of(tokens, rows, p.width),
         {[&]() -> Tensors { return {ops::q8_products(arena, x, w, x.scalar_type())}; }},
         {[&]() -> Tensors { return {at::linear(ops::rounded_to_blocks(x), numbers).to(p.type)}; }},
         bytes_of({x, w.quants, w.scales}) +
             static_cast<double>(tokens * rows) * static_cast<double>(x.itemsize()),
         /*flops=*/0,
         /*reads=*/true});
  }
}

void show_cached_attention(const Problem& p, const Visit& visit) {
  const kernels::AttentionShape shape = {1, 1, p.width / kHeadWidth, p.width / kHeadWidth,
                                         kHeadWidth};
  const at::Tensor keys = values({1, shape.kv_heads, p.tokens, shape.width}, p.type),
                   kept = values(keys.sizes(), p.type);
  const at::Tensor qkv = values({1, shape.row()}, p.type);
  const ops::RopeTable rope = ops::rope_table(0, p.tokens, shape.width, kRopeTheta, at::kFloat);
  const std::vector<int64_t> positions = {p.tokens - 1};
  const auto ours = ops::make_cpu_backend(), composed = ops::make_composed_backend(at::kCPU);
  const auto run = [&](ops::Backend& backend) -> Tensors {
    const at::NoGradGuard no_grad;
    return {backend.cached_attention(qkv, shape, rope, {keys, kept, positions})};
  };
  visit({"forward",
         fmt::format("1 over {}, {} heads", p.tokens, shape.heads),
         {[&] { return run(*ours); }},
         {[&] { return run(*composed); }},
         bytes_of({qkv, keys, kept}),
         /*flops=*/0,
         /*reads=*/true});
}

}  // namespace wavroute::opbench
