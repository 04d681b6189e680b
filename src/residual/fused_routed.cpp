#include "residual/fused_routed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "ops/parallel.h"
#include "ops/typed.h"
#include "residual/prenorm_op.h"

namespace wavroute {
namespace {

using ops::in;
using ops::out;

// Phase 1 for a whole block reads n sources once and gives every router's mixture a place in
// memory; router by router n sources are read each time, and the mixture stays in the cache. `bench
// op route_mix` beside `route_mix_each` says that such a place costs about as much as one more
// source.
bool two_phase_wins(size_t sources, size_t routers) { return sources * (routers - 1) > routers; }

}  // namespace

FusedRoutedStream::FusedRoutedStream(const RoutedResidual& scheme, const StreamOptions& options)
    : FusedStream(options), scheme_(scheme) {}

// ---- what is where -----------------------------------------------------------------------------

float FusedRoutedStream::sign(int64_t block, int64_t position, int64_t sum) const {
  if (sum == 0) return 1.0F;
  const DetailBasis& basis = scheme_.spec().details[static_cast<size_t>(sum - 1)];
  return static_cast<float>(
      basis.sign(site_at(block, position), position, blocks().length_of(block)));
}

int FusedRoutedStream::slot(int64_t block, int64_t position) const {
  int bits = 0;
  for (int64_t s = 1; s < sums(); ++s) {
    if (sign(block, position, s) < 0.0F) bits |= 1 << (s - 1);
  }
  return bits;
}

// The first update of a block is positive in every sum, so that slot 0 always comes first.
FusedRoutedStream::Layout FusedRoutedStream::layout(int64_t block, int64_t writes) const {
  std::array<bool, kernels::kMostParts> present = {};
  for (int64_t position = 0; position < writes; ++position) {
    present[static_cast<size_t>(slot(block, position))] = true;
  }
  Layout found;
  for (int k = 0; k < kernels::kMostParts; ++k) {
    if (present[static_cast<size_t>(k)]) found.slot[static_cast<size_t>(found.count++)] = k;
  }
  if (found.count > 2) {
    found.count = kernels::kMostParts;
    found.slot = {0, 1, 2, 3};
  }
  for (int s = 1; s < static_cast<int>(sums()); ++s) {
    int& form = found.form[static_cast<size_t>(s)];
    if (found.count == 2) form = found.slot[1] >> (s - 1) & 1;
    if (found.count == kernels::kMostParts) form = s;
  }
  return found;
}

int FusedRoutedStream::owner(const Layout& layout, int form) {
  const auto place = std::find(layout.form.begin(), layout.form.end(), form);
  return static_cast<int>(place - layout.form.begin());
}

// ---- phase 1 -----------------------------------------------------------------------------------

FusedRoutedStream::Group FusedRoutedStream::make_group(int64_t block) const {
  Group group;
  const auto put = [&](int64_t index, int64_t sum) {
    group.sums.push_back(sum);
    group.rows.push_back(row(bank_, index));
    group.ratios.push_back(row(ratio_, index));
    group.inverses.push_back(row(inverse_, index));
  };
  put(0, 0);
  for (int64_t earlier = 0; earlier < block; ++earlier) {
    for (int64_t sum = 0; sum < sums(); ++sum) put(first_row(earlier) + sum, sum);
  }
  if (block == blocks().count) {
    group.routers.push_back(&scheme_.router(std::nullopt));
  } else {
    for (int64_t i = 0; i < blocks().length_of(block); ++i) {
      group.routers.push_back(&scheme_.router(site_at(block, i)));
    }
  }
  const auto routers = static_cast<int64_t>(group.routers.size());
  const auto sources = static_cast<int64_t>(group.rows.size());
  group.query = arena_.empty({routers, d_}, at::kFloat).zero_();
  group.bias = arena_.empty({routers, sources}, at::kFloat).zero_();
  for (int64_t r = 0; r < routers; ++r) {
    const Router& router = *group.routers[static_cast<size_t>(r)];
    if (router.query == nullptr) continue;
    const float* w = in<float>(router.query->value);
    const float* g = in<float>(router.gain->value);
    for (int64_t c = 0; c < d_; ++c) row(group.query, r)[c] = w[c] * g[c];
    for (int64_t j = 0; j < sources; ++j) {
      row(group.bias, r)[j] = bias_of(router, group.sums[static_cast<size_t>(j)]);
    }
  }
  group.peak = arena_.empty_apart(routers, {tokens_});
  group.mass = arena_.empty_apart(routers, {tokens_});
  if (record_) {
    group.logits = arena_.empty_apart(routers * sources, {tokens_});
    group.lse = arena_.empty_apart(routers, {tokens_});
    group.running = arena_.empty_apart(routers * sums() * 3, {tokens_});
  }
  return group;
}

template <typename C>
void FusedRoutedStream::mix(const Group& group, int64_t router, int64_t routers, int64_t begin,
                            int64_t end) const {
  kernels::MixFinished<float, C> args;
  set_sources(args, group, router, routers);
  args.logits = group.logits.defined()
                    ? row(group.logits, router * static_cast<int64_t>(group.rows.size()))
                    : nullptr;
  args.peak = row(group.peak, router);
  args.mass = row(group.mass, router);
  args.mixed = row<C>(group.mixed, group.two_phase ? router : 0);
  args.pitch = group.mixed.stride(0);
  kernels::chosen_kernels().finished->fp32.mix.of<C>().forward(args, begin, end);
}

FusedRoutedStream::Group& FusedRoutedStream::enter(int64_t block, int64_t position,
                                                   at::ScalarType type) {
  if (block == group_block_) {
    TORCH_INTERNAL_ASSERT(groups_.at(block).mixed.scalar_type() == type, "a block has one type");
    return groups_.at(block);
  }
  if (!record_) groups_.clear();
  if (group_block_ >= 0 && groups_.contains(group_block_)) groups_[group_block_].mixed.reset();
  group_block_ = block;
  // Recomputation comes back to a block: what its later readers left is needed by its backward.
  auto [place, fresh] = groups_.try_emplace(block);
  Group& group = place->second;
  if (fresh || (record_ && !group.logits.defined())) group = make_group(block);
  group.two_phase = position == 0 && two_phase_wins(group.rows.size(), group.routers.size());
  const auto routers = static_cast<int64_t>(group.routers.size());
  group.mixed = arena_.empty_apart(group.two_phase ? routers : 1, {tokens_, d_}, type);
  return group;
}

// ---- forward -----------------------------------------------------------------------------------

void FusedRoutedStream::begin(const at::Tensor& embedding) {
  const at::NoGradGuard no_grad;
  shape_ = embedding.sizes().vec();
  d_ = embedding.size(-1);
  tokens_ = embedding.numel() / d_;
  const int64_t rows = first_row(blocks().count);
  bank_ = arena_.empty_apart(rows, {tokens_, d_});
  ratio_ = arena_.empty_apart(rows, {tokens_});
  inverse_ = arena_.empty_apart(rows, {tokens_});
  bank_[0].copy_(embedding.reshape({tokens_, d_}));
  measure_embedding();
}

// What the end of a block finds out about its sums, of e.
void FusedRoutedStream::measure_embedding() {
  kernels::SourceScalars<float> args;
  args.d = d_;
  args.row = args.summary = row(bank_, 0);
  args.norm_eps = static_cast<float>(scheme_.spec().norm_eps);
  args.matching_eps = static_cast<float>(scheme_.spec().matching_eps);
  args.ratio = row(ratio_, 0);
  args.inverse = row(inverse_, 0);
  const auto kernel = kernels::chosen_kernels().finished->fp32.source_scalars;
  ops::parallel_for(tokens_, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

void FusedRoutedStream::write(const Site& site, const at::Tensor& update) {
  const int64_t block = blocks().block_of(site.index());
  if (block != block_) {
    block_ = block;
    writes_ = 0;
    parts_ = {};
  }
  pending_ = update.reshape({tokens_, d_}).contiguous();
  update_type_ = pending_.scalar_type();
  ++writes_;
}

// The pending update, with a new row for its part: rows that a reader saw stay as they are. The
// first update of a part needs no row of its own where it is float already.
template <typename C>
kernels::PartWrite<C> FusedRoutedStream::take_pending(Held& held) {
  if (!pending_.defined()) return {};
  const int place = slot(block_, writes_ - 1);
  at::Tensor& part = parts_[static_cast<size_t>(place)];
  held.update = std::move(pending_);
  held.before = part;
  pending_.reset();
  if (!part.defined() && held.update.scalar_type() == at::kFloat) {
    part = held.update;
    return {};
  }
  part = arena_.empty({tokens_, d_}, at::kFloat);
  const Layout now = layout(block_, writes_);
  const auto index = std::find(now.slot.begin(), now.slot.end(), place) - now.slot.begin();
  return {in<C>(held.update), static_cast<int>(index), in<float>(held.before), out<float>(part)};
}

// Puts the pending update into its part without a reader after it.
void FusedRoutedStream::flush() {
  if (!pending_.defined()) return;
  at::Tensor& part = parts_[static_cast<size_t>(slot(block_, writes_ - 1))];
  const at::Tensor update = std::move(pending_);
  pending_.reset();
  if (!part.defined() && update.scalar_type() == at::kFloat) {
    part = update;
    return;
  }
  at::Tensor sum = arena_.empty({tokens_, d_}, at::kFloat);
  part = part.defined() ? at::add_out(sum, part, update) : sum.copy_(update);
}

// The first sublayer reads e itself.
at::Tensor FusedRoutedStream::read_embedding(const PreNorm& norm) {
  const ops::Normed normed =
      ops::add_norm(arena_, bank_[0].view(shape_), {}, norm_of(norm), norm.type);
  if (record_) records_.push_back({normed.h, normed.inverse_rms, {}});
  return normed.x;
}

kernels::Parts FusedRoutedStream::parts_of(const Layout& layout, const PartRows& rows) {
  kernels::Parts parts;
  parts.count = layout.count;
  for (size_t k = 0; k < static_cast<size_t>(layout.count); ++k) {
    parts.row[k] = in<float>(rows[static_cast<size_t>(layout.slot[k])]);
  }
  return parts;
}

// The end of the block that was written: its sums become rows of the bank.
template <typename C>
kernels::FinishBlock<C> FusedRoutedStream::finish_arguments(Held& held) {
  kernels::FinishBlock<C> args;
  const Layout last = layout(block_, writes_);
  args.d = d_;
  args.write = take_pending<C>(held);
  args.parts = parts_of(last, parts_);
  args.sums = static_cast<int>(sums());
  args.norm_eps = static_cast<float>(scheme_.spec().norm_eps);
  args.matching_eps = static_cast<float>(scheme_.spec().matching_eps);
  for (int s = 0; s < args.sums; ++s) {
    args.form[s] = last.form[static_cast<size_t>(s)];
    args.row[s] = row(bank_, first_row(block_) + s);
    args.ratio[s] = row(ratio_, first_row(block_) + s);
    args.inverse[s] = row(inverse_, first_row(block_) + s);
  }
  held.parts = std::exchange(parts_, {});
  writes_ = 0;
  return args;
}

// The reader at `position` of `block` and the write before it, without what it gives.
template <typename C>
kernels::WriteRead<C> FusedRoutedStream::read_arguments(const Group& group, int64_t block,
                                                        int64_t position, Held& held) {
  kernels::WriteRead<C> args;
  args.d = d_;
  args.query = row(group.query, position);
  args.peak = row(group.peak, position);
  args.mass = row(group.mass, position);
  args.mixed = row<C>(group.mixed, group.two_phase ? position : 0);
  args.norm_eps = static_cast<float>(scheme_.spec().norm_eps);
  args.matching_eps = static_cast<float>(scheme_.spec().matching_eps);
  args.lse = record_ ? row(group.lse, position) : nullptr;
  if (position == 0) return args;
  const Layout now = layout(block, position);
  args.write = take_pending<C>(held);
  args.parts = parts_of(now, parts_);
  args.running = scheme_.spec().partial_details ? static_cast<int>(sums()) : 1;
  for (int s = 0; s < args.running; ++s) {
    kernels::RunningSource& source = args.sources[s];
    source.form = now.form[static_cast<size_t>(s)];
    source.bias = bias_of(*group.routers[static_cast<size_t>(position)], s);
    if (!record_) continue;
    source.dot = kept(group, position, s, 0);
    source.ratio = kept(group, position, s, 1);
    source.inverse = kept(group, position, s, 2);
  }
  return args;
}

// x of the reader at `position` of `block`; of the read-out at position 0 of the block after the
// last one. What a chunk of tokens goes through is done while its rows are in the cache.
at::Tensor FusedRoutedStream::merge(int64_t block, int64_t position, const PreNorm& norm) {
  const at::NoGradGuard no_grad;
  if (block == 0 && position == 0) return read_embedding(norm);
  if (pending_.defined() && pending_.scalar_type() != norm.type) flush();
  const Group& group = enter(block, position, norm.type);
  Record record;
  Held held;
  const ops::Norm pre = norm_of(norm);
  at::Tensor x = arena_.empty(shape_, norm.type);
  if (record_) {
    record.h = arena_.empty({tokens_, d_}, norm.type);
    if (norm.gain != nullptr) record.inverse_rms = arena_.empty({tokens_}, at::kFloat);
  }
  ops::with_type(norm.type, [&]<typename C>() {
    const auto& kernels = kernels::chosen_kernels().running->of<C>();
    std::optional<kernels::FinishBlock<C>> finish;
    if (position == 0 && writes_ > 0) finish = finish_arguments<C>(held);
    kernels::WriteRead<C> args = read_arguments<C>(group, block, position, held);
    args.gain = in<float>(pre.gain);
    args.h = out<C>(record.h);
    args.x = out<C>(x);
    args.inverse_rms = out<float>(record.inverse_rms);
    const auto routers = static_cast<int64_t>(group.routers.size());
    ops::for_chunks(tokens_, [&](int64_t, int64_t begin, int64_t end) {
      if (finish) kernels.finish_block(*finish, begin, end);
      if (!group.two_phase) mix<C>(group, position, 1, begin, end);
      if (group.two_phase && position == 0) mix<C>(group, 0, routers, begin, end);
      kernels.write_read(args, begin, end);
    });
  });
  if (record_) {
    record.parts = parts_;
    records_.push_back(std::move(record));
  }
  return x;
}

at::Tensor FusedRoutedStream::read_normed(const Site& site, const PreNorm& norm) {
  return merge(blocks().block_of(site.index()), blocks().position_of(site.index()), norm);
}
at::Tensor FusedRoutedStream::read_out_normed(const PreNorm& norm) {
  return merge(blocks().count, 0, norm);
}

// ---- recomputation -----------------------------------------------------------------------------

StreamSnapshot FusedRoutedStream::snapshot() {
  const at::NoGradGuard no_grad;
  flush();
  StreamSnapshot result = {at::tensor({block_, writes_}, at::kLong)};
  result.insert(result.end(), parts_.begin(), parts_.end());
  return result;
}

void FusedRoutedStream::restore(const StreamSnapshot& snapshot) {
  block_ = in<int64_t>(snapshot[0])[0];
  writes_ = in<int64_t>(snapshot[0])[1];
  std::copy(snapshot.begin() + 1, snapshot.end(), parts_.begin());
  pending_.reset();
  records_.clear();
  group_block_ = -1;
}

}  // namespace wavroute
