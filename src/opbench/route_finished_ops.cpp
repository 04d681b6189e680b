// Phase 1 of a block: its routers over the finished sources (method.md sections 3 and 4).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <span>

#include "kernels/kernels.h"
#include "opbench/operator.h"
#include "ops/arena.h"
#include "ops/parallel.h"
#include "ops/typed.h"
#include "residual/router.h"

namespace wavroute::opbench {
namespace {

using ops::in;
using ops::out;

constexpr int64_t kRouters = 16;
constexpr int64_t kDetails = 2;
constexpr int64_t kBlocksBefore[] = {0, 1, 3, 6};  // 1, 4, 10 and 19 sources
constexpr float kBeta = -4.0F;

// Normal numbers [count, ...sizes] as the stream has them, see Arena::empty_apart.
at::Tensor apart(int64_t count, at::IntArrayRef sizes, at::ScalarType type = at::kFloat) {
  return ops::Arena().empty_apart(count, sizes, type).normal_();
}

template <typename T>
std::vector<T*> row_pointers(const at::Tensor& all) {
  std::vector<T*> rows;
  for (int64_t i = 0; i < all.size(0); ++i) rows.push_back(out<float>(all) + i * all.stride(0));
  return rows;
}

// e, then S and two details of each block; a block's routers over them.
struct Block {
  Block(const Problem& p, int64_t blocks)
      : tokens(p.tokens),
        d(p.width),
        sources(1 + blocks * (1 + kDetails)),
        bank(apart(sources, {1, tokens, d})),
        power(bank.square().mean(-1)),
        ratio(apart(sources, {1, tokens}).fill_(1.0)),
        bias(at::zeros({kRouters, sources})),
        logits(apart(kRouters * sources, {tokens})),
        peak(apart(kRouters, {tokens})),
        mass(apart(kRouters, {tokens})),
        mixed(apart(kRouters, {tokens, d}, p.type)) {
    for (int64_t j = 0; j < sources; ++j) {
      bases.push_back(j == 0 ? -1 : static_cast<int>((j - 1) % (1 + kDetails)) - 1);
      summaries.push_back(j - 1 - bases.back());
      if (bases.back() < 0) continue;
      bias.select(1, j).fill_(kBeta);
      ratio[j].copy_(matching_ratio(bank[j], bank[summaries.back()], kMatchingEps).squeeze(-1));
    }
    kinds = row_kinds(bases, summaries, kDetails, bank.options());
    inverse = apart(sources, {1, tokens});
    inverse.copy_((ratio.square() * power).add_(kNormEps).rsqrt_());
    for (int64_t i = 0; i < kRouters; ++i) {
      Router& router = routers.emplace_back();
      router.query = parameter(values({1, d}) * 0.1);
      router.gain = parameter(at::ones({d}));
      router.bias = parameter(at::full({kDetails}, kBeta));
    }
    std::vector<at::Tensor> queries;
    for (const Router& router : routers) queries.push_back(router.query->value.detach().view({-1}));
    query = at::stack(queries);
    rows = row_pointers<const float>(bank);
    ratios = row_pointers<const float>(ratio);
    inverses = row_pointers<const float>(inverse);
  }

  Parameter* parameter(const at::Tensor& value) {
    Parameter& made = parameters.emplace_back();
    made.shape = value.sizes().vec();
    made.value = leaf(value);
    return &made;
  }

  // `count` routers from `router` on; their mixtures to the rows of `mixed` from `place` on.
  void mix(int64_t router, int64_t count, int64_t place) const {
    ops::with_type(mixed.scalar_type(), [&]<typename C>() {
      kernels::MixFinished<float, C> args;
      args.d = d, args.tokens = peak.stride(0), args.pitch = mixed.stride(0);
      args.sources = sources, args.routers = count;
      args.rows = rows.data(), args.ratio = ratios.data(), args.inverse = inverses.data();
      args.query = in<float>(query) + router * d, args.bias = in<float>(bias) + router * sources;
      args.logits = out<float>(logits) + router * sources * logits.stride(0);
      args.peak = out<float>(peak) + router * peak.stride(0);
      args.mass = out<float>(mass) + router * mass.stride(0);
      args.mixed = out<C>(mixed) + place * mixed.stride(0);
      const auto kernel = kernels::chosen_kernels().finished->fp32.mix.of<C>().forward;
      ops::for_chunks(tokens,
                      [&](int64_t, int64_t begin, int64_t end) { kernel(args, begin, end); });
    });
  }

  void mix() const { mix(0, kRouters, 0); }
  // As a block does whose mixtures are not worth a place in memory: all to the same row.
  void mix_each() const {
    for (int64_t i = 0; i < kRouters; ++i) mix(i, 1, 0);
  }

  // Router by router, as RoutedStream reads.
  void composed_mix() const {
    for (const Router& router : routers) {
      (void)mix_rows(bank, row_scalars(bank, power, kinds, router, kNormEps, kMatchingEps));
    }
  }

  [[nodiscard]] std::string size() const {
    return fmt::format("{}, {} sources", rows_by_columns(tokens, d), sources);
  }

  int64_t tokens, d, sources;
  at::Tensor bank;          // [n, 1, tokens, d]
  at::Tensor power, ratio;  // [n, 1, tokens]
  at::Tensor inverse;       // [n, 1, tokens]
  at::Tensor bias;          // [R, n]
  at::Tensor query;         // [R, d]
  at::Tensor logits;        // [R, n, tokens]
  at::Tensor peak, mass;    // [R, tokens]
  at::Tensor mixed;         // [R, tokens, d]
  std::vector<int> bases;
  std::vector<int64_t> summaries;
  RowKinds kinds;
  std::deque<Parameter> parameters;
  std::vector<Router> routers;
  std::vector<const float*> rows, ratios, inverses;
};

// What the backward of a block needs and gives, ours.
struct Backward {
  Backward(const Block& block, ops::Arena& arena)
      : block(block),
        arena(arena),
        dh(apart(kRouters, {block.tokens, block.d}, block.mixed.scalar_type())),
        grad(apart(block.sources, {1, block.tokens, block.d}).zero_()),
        first(std::make_unique<bool[]>(static_cast<size_t>(block.sources))) {
    block.mix();
    lse = apart(kRouters, {block.tokens}).copy_(block.peak + block.mass.log());
    along = apart(kRouters, {block.tokens})
                .copy_((dh.to(at::kFloat) * block.mixed).sum(-1).div_(block.mass));
    grads = row_pointers<float>(grad);
    std::fill_n(first.get(), block.sources, false);
  }

  void run() const {
    const int64_t chunks = ops::chunk_count(block.tokens);
    const ops::PartialSums query_grad(arena, chunks, kRouters * block.d);
    const ops::PartialSums bias_grad(arena, chunks, kRouters * block.sources);
    ops::with_type(dh.scalar_type(), [&]<typename C>() {
      kernels::MixFinishedBackward<float, C> args;
      args.d = block.d, args.tokens = lse.stride(0), args.pitch = dh.stride(0);
      args.sources = block.sources, args.routers = kRouters;
      args.rows = block.rows.data();
      args.ratio = block.ratios.data(), args.inverse = block.inverses.data();
      args.query = in<float>(block.query), args.bias = in<float>(block.bias);
      args.logits = in<float>(block.logits), args.lse = in<float>(lse);
      args.along = in<float>(along), args.dh = in<C>(dh);
      args.grads = grads.data(), args.first = first.get();
      const auto kernel = kernels::chosen_kernels().finished->fp32.mix.of<C>().backward;
      ops::for_chunks(block.tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
        kernels::MixFinishedBackward<float, C> own = args;
        own.query_grad = query_grad.of(chunk);
        own.bias_grad = bias_grad.of(chunk);
        kernel(own, begin, end);
      });
    });
    (void)query_grad.total();
    (void)bias_grad.total();
  }

  const Block& block;
  ops::Arena& arena;
  at::Tensor dh;          // [R, tokens, d]
  at::Tensor grad;        // [n, 1, tokens, d]
  at::Tensor lse, along;  // [R, tokens]
  std::vector<float*> grads;
  std::unique_ptr<bool[]> first;
};

// The graph of all routers' reads, and the leaves whose gradients are wanted: the sources first.
struct Graph {
  explicit Graph(const Block& block) {
    std::vector<Source> sources;
    for (int64_t j = 0; j < block.sources; ++j) {
      leaves.push_back(leaf(block.bank[j]));
      const int basis = block.bases[static_cast<size_t>(j)];
      const at::Tensor scale = block.ratio[j].unsqueeze(-1);
      sources.push_back({basis < 0 ? leaves.back() : leaves.back() * scale, basis});
    }
    for (const Router& router : block.routers) {
      outputs.push_back(mix(sources, router, kNormEps));
      for (const Parameter* p : {router.query, router.gain, router.bias}) {
        leaves.push_back(p->value);
      }
    }
  }

  std::vector<at::Tensor> leaves, outputs;
};

}  // namespace

// Finished rows are float, whatever the compute type; mixtures and their gradients are of it.
void show_route_mix(const Problem& p, const Visit& visit) {
  for (const int64_t blocks : kBlocksBefore) {
    const Block b(p, blocks);
    visit({"forward",
           b.size(),
           {[&] { b.mix(); }},
           {[&] { b.composed_mix(); }},
           bytes_of(
               {b.bank, b.ratio, b.inverse, b.query, b.bias, b.logits, b.peak, b.mass, b.mixed})});
  }
}

// Counted as phase 1 of a block: what it costs not to have one.
void show_route_mix_each(const Problem& p, const Visit& visit) {
  for (const int64_t blocks : kBlocksBefore) {
    const Block b(p, blocks);
    visit({"forward",
           b.size(),
           {[&] { b.mix_each(); }},
           {[&] { b.composed_mix(); }},
           bytes_of(
               {b.bank, b.ratio, b.inverse, b.query, b.bias, b.logits, b.peak, b.mass, b.mixed})});
  }
}

void show_route_mix_backward(const Problem& p, const Visit& visit) {
  // A single source leaves the details' biases without a gradient.
  for (const int64_t blocks : std::span(kBlocksBefore).subspan(1)) {
    ops::Arena arena;
    const Block b(p, blocks);
    const Backward ours(b, arena);
    const Graph graph(b);
    std::vector<at::Tensor> directions;
    for (int64_t i = 0; i < kRouters; ++i)
      directions.push_back(ours.dh[i].unsqueeze(0).to(at::kFloat));
    visit({"backward",
           b.size(),
           {[&] { ours.run(); }},
           {[&] {
             const auto grads = gradients(graph.outputs, graph.leaves, directions);
             for (int64_t j = 0; j < b.sources; ++j) {
               ours.grad[j].add_(grads[static_cast<size_t>(j)]);
             }
           }},
           bytes_of({b.bank, b.ratio, b.inverse, b.query, b.bias, b.logits, ours.lse, ours.along,
                     ours.dh, ours.grad, ours.grad, b.query, b.bias})});
  }
}

}  // namespace wavroute::opbench
