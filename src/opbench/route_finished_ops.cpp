// Phase 1 of a block: its routers over the finished sources (method.md sections 3 and 4).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <span>

#include "functional/composed.h"
#include "opbench/operator.h"
#include "ops/arena.h"
#include "ops/route.h"

namespace wavroute::opbench {
namespace {

constexpr int64_t kRouters = 16;
constexpr int64_t kDetails = 2;
constexpr int64_t kBlocksBefore[] = {0, 1, 3, 6};  // 1, 4, 10 and 19 sources
constexpr float kBeta = -4.0F;

// Normal numbers [count, ...sizes] in the stream's layout, see Arena::empty_apart.
at::Tensor apart(int64_t count, at::IntArrayRef sizes, at::ScalarType type = at::kFloat) {
  return ops::Arena().empty_apart(count, sizes, type).normal_();
}

// e, then S and two details of each block; a block's routers over them.
struct Block {
  Block(const Problem& p, int64_t blocks)
      : tokens(p.tokens),
        d(p.width),
        sources(1 + blocks * (1 + kDetails)),
        bank(apart(sources, {tokens, d})) {
    group.sources = {bank.unbind(), apart(sources, {tokens}), apart(sources, {tokens})};
    group.routers.query = values({kRouters, d}) * 0.1;
    group.routers.bias = at::zeros({kRouters, sources});
    group.logits = apart(kRouters * sources, {tokens});
    group.peak = apart(kRouters, {tokens});
    group.mass = apart(kRouters, {tokens});
    group.mixed = apart(kRouters, {tokens, d}, p.type);
    for (int64_t j = 0; j < sources; ++j) {
      const int64_t sum = j == 0 ? 0 : (j - 1) % (1 + kDetails);
      if (sum > 0) group.routers.bias.select(1, j).fill_(kBeta);
      ops::source_scalars(bank[j], bank[j - sum], {kNormEps, kMatchingEps}, group.sources.ratio[j],
                          group.sources.inverse[j]);
    }
    each = group;
    each.mixed = group.mixed.narrow(0, 0, 1);
  }

  [[nodiscard]] Tensors mix() const {
    ops::mix({&group, 0, kRouters});
    return {group.mixed, group.mass};
  }
  // As in a block where phase 1 is done router by router: all to the same row.
  [[nodiscard]] Tensors mix_each() const {
    for (int64_t i = 0; i < kRouters; ++i) ops::mix({&each, i, 1});
    return {each.mixed, each.mass};
  }
  [[nodiscard]] Tensors composed_mix() const {
    const at::NoGradGuard no_grad;
    const auto [mixed, peak, mass, logits] = functional::composed::route_mix(
        group.sources.rows, group.sources.ratio, group.sources.inverse, group.routers.query,
        group.routers.bias);
    return {mixed, mass};
  }

  [[nodiscard]] std::string size() const {
    return fmt::format("{}, {} sources", rows_by_columns(tokens, d), sources);
  }
  // What phase 1 reads and writes.
  [[nodiscard]] double bytes() const {
    return bytes_of({bank, group.sources.ratio, group.sources.inverse, group.routers.query,
                     group.routers.bias, group.logits, group.peak, group.mass, group.mixed});
  }

  int64_t tokens, d, sources;
  at::Tensor bank;  // [n, tokens, d]
  ops::RouterGroup group;
  ops::RouterGroup each;  // the same with room for one mixture
};

// Its backward, from gradients of mixed and mass as a reader's graph has them: the softmax of the
// kernel is over all sources of a reader, so that its lse is the peak here (functional/route_mix).
struct Backward {
  explicit Backward(const Block& of) : block(of), group(of.group) {
    (void)block.mix();
    group.lse = group.peak;
    group.dh = apart(kRouters, {block.tokens, block.d}, group.mixed.scalar_type());
    group.along = apart(kRouters, {block.tokens});
    grad = apart(block.sources, {block.tokens, block.d});
    grads = grad.unbind();
    query_grad = at::zeros({kRouters, block.d});
    bias_grad = at::zeros({kRouters, block.sources});
    for (const at::Tensor& row : group.sources.rows) leaves.push_back(leaf(row));
    const at::Tensor query = leaf(group.routers.query), bias = leaf(group.routers.bias);
    const auto [mixed, peak, mass, logits] = functional::composed::route_mix(
        leaves, group.sources.ratio, group.sources.inverse, query, bias);
    outputs = {mixed, mass};
    directions = {group.dh.to(at::kFloat), at::neg(group.along)};
    leaves.push_back(query);
    leaves.push_back(bias);
  }

  void clear() const {
    for (const at::Tensor& sums : {grad, query_grad, bias_grad}) at::Tensor(sums).zero_();
  }
  [[nodiscard]] Tensors run(ops::Arena& arena) const {
    ops::mix_backward(arena, {.group = &group,
                              .count = kRouters,
                              .source_grads = grads,
                              .query_grad = query_grad,
                              .bias_grad = bias_grad});
    return {grad, query_grad, bias_grad};
  }
  [[nodiscard]] Tensors composed_run() const {
    const Tensors made = gradients(outputs, leaves, directions);
    for (size_t j = 0; j < grads.size(); ++j) grads[j].add_(made[j]);
    return {grad, made[grads.size()], made[grads.size() + 1]};
  }

  const Block& block;
  ops::RouterGroup group;
  at::Tensor grad;  // [n, tokens, d]
  Tensors grads;    // its rows
  at::Tensor query_grad, bias_grad;
  Tensors leaves, outputs, directions;  // of the composed form's graph
};

}  // namespace

// Finished rows are float, whatever the compute type; mixtures and their gradients are of it.
void show_route_mix(const Problem& p, const Visit& visit) {
  for (const int64_t blocks : kBlocksBefore) {
    const Block b(p, blocks);
    visit({"forward",
           b.size(),
           {[&] { return b.mix(); }},
           {[&] { return b.composed_mix(); }},
           b.bytes()});
  }
}

// Counted as phase 1 of a block: what it costs not to have one.
void show_route_mix_each(const Problem& p, const Visit& visit) {
  for (const int64_t blocks : kBlocksBefore) {
    const Block b(p, blocks);
    visit({"forward",
           b.size(),
           {[&] { return b.mix_each(); }},
           // The last router's mixture is the one that is left.
           {[&]() -> Tensors {
             const Tensors all = b.composed_mix();
             return {all[0][kRouters - 1], all[1]};
           }},
           b.bytes()});
  }
}

void show_route_mix_backward(const Problem& p, const Visit& visit) {
  ops::Arena arena;
  for (const int64_t blocks : kBlocksBefore) {
    const Block b(p, blocks);
    const Backward backward(b);
    const ops::RouterGroup& group = backward.group;
    visit({"backward",
           b.size(),
           {[&] { return backward.run(arena); }, [&] { backward.clear(); }},
           {[&] { return backward.composed_run(); }, [&] { backward.clear(); }},
           bytes_of({b.bank, group.sources.ratio, group.sources.inverse, group.routers.query,
                     group.routers.bias, group.logits, group.lse, group.along, group.dh,
                     backward.grad, backward.grad, group.routers.query, group.routers.bias})});
  }
}

}  // namespace wavroute::opbench
