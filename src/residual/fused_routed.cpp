#include "residual/fused_routed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ops/parallel.h"
#include "ops/typed.h"
#include "residual/prenorm_op.h"

namespace wavroute {
namespace {

using ops::in;
using ops::out;

// Phase 1 for a whole block reads n sources once, and writes and reads `routers` mixtures; router
// by router it reads n sources each time. Counted in rows of [tokens, d].
bool two_phase_wins(size_t sources, size_t routers) {
  return sources * (routers - 1) > 3 * routers;
}

}  // namespace

FusedRoutedStream::FusedRoutedStream(const RoutedResidual& scheme, const StreamOptions& options)
    : FusedStream(options), scheme_(scheme) {}

// ---- what is where -----------------------------------------------------------------------------

double FusedRoutedStream::sign(int64_t block, int64_t position, int64_t sum) const {
  if (sum == 0) return 1.0;
  const DetailBasis& basis = scheme_.spec().details[static_cast<size_t>(sum - 1)];
  return basis.sign(site_at(block, position), position, blocks().length_of(block));
}

bool FusedRoutedStream::is_summary(int64_t block, int64_t writes, int64_t sum) const {
  if (sum == 0) return false;
  for (int64_t position = 0; position < writes; ++position) {
    if (sign(block, position, sum) != 1.0) return false;
  }
  return true;
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
  group.peak = arena_.empty({routers, tokens_}, at::kFloat);
  group.mass = arena_.empty({routers, tokens_}, at::kFloat);
  if (record_) {
    group.logits = arena_.empty({routers, sources, tokens_}, at::kFloat);
    group.lse = arena_.empty({routers, tokens_}, at::kFloat);
    group.running = arena_.empty({routers, sums(), 3, tokens_}, at::kFloat);
  }
  return group;
}

void FusedRoutedStream::mix(const Group& group, int64_t router, int64_t routers, int64_t begin,
                            int64_t end) const {
  kernels::MixFinished<float> args;
  set_sources(args, group, router, routers);
  args.logits = group.logits.defined() ? row(group.logits, router) : nullptr;
  args.peak = row(group.peak, router);
  args.mass = row(group.mass, router);
  args.mixed = row(group.mixed, group.two_phase ? router : 0);
  kernels::chosen_kernels().finished->fp32.mix(args, begin, end);
}

// The group of the reader at `position` of `block`, with its phase 1 done where it is done at once.
void FusedRoutedStream::enter(int64_t block, int64_t position) {
  if (block == group_block_) return;
  if (!record_) groups_.clear();
  if (group_block_ >= 0 && groups_.contains(group_block_)) groups_[group_block_].mixed.reset();
  group_block_ = block;
  // Recomputation comes back to a block: what its later readers left is needed by its backward.
  auto [place, fresh] = groups_.try_emplace(block);
  Group& group = place->second;
  if (fresh || (record_ && !group.logits.defined())) group = make_group(block);
  group.two_phase = position == 0 && two_phase_wins(group.rows.size(), group.routers.size());
  const auto routers = static_cast<int64_t>(group.routers.size());
  group.mixed = arena_.empty({group.two_phase ? routers : 1, tokens_, d_}, at::kFloat);
  if (!group.two_phase) return;
  ops::for_chunks(tokens_,
                  [&](int64_t, int64_t begin, int64_t end) { mix(group, 0, routers, begin, end); });
}

// ---- forward -----------------------------------------------------------------------------------

void FusedRoutedStream::begin(const at::Tensor& embedding) {
  const at::NoGradGuard no_grad;
  shape_ = embedding.sizes().vec();
  d_ = embedding.size(-1);
  tokens_ = embedding.numel() / d_;
  const int64_t rows = first_row(blocks().count);
  bank_ = arena_.empty({rows, tokens_, d_}, at::kFloat);
  ratio_ = arena_.empty({rows, tokens_}, at::kFloat);
  inverse_ = arena_.empty({rows, tokens_}, at::kFloat);
  bank_[0].copy_(embedding.reshape({tokens_, d_}));
  measure(0, 0);
}

void FusedRoutedStream::measure(int64_t index, int64_t summary) {
  kernels::SourceScalars<float> args;
  args.d = d_;
  args.row = row(bank_, index);
  args.summary = row(bank_, summary);
  args.norm_eps = static_cast<float>(scheme_.spec().norm_eps);
  args.matching_eps = static_cast<float>(scheme_.spec().matching_eps);
  args.ratio = row(ratio_, index);
  args.inverse = row(inverse_, index);
  const auto kernel = kernels::chosen_kernels().finished->fp32.source_scalars;
  ops::parallel_for(tokens_, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

void FusedRoutedStream::write(const Site& site, const at::Tensor& update) {
  const int64_t block = blocks().block_of(site.index());
  if (block != block_) {
    block_ = block;
    writes_ = 0;
  }
  pending_ = update.reshape({tokens_, d_});
  ++writes_;
  if (record_) records_.back().update = pending_;
}

// Without sums, or with those of the block being written: after `writes_` updates, of which the
// last is pending or already in them.
template <typename C>
kernels::WriteRead<C> FusedRoutedStream::write_read_arguments(bool with_sums) const {
  kernels::WriteRead<C> args;
  args.d = d_;
  args.norm_eps = static_cast<float>(scheme_.spec().norm_eps);
  args.matching_eps = static_cast<float>(scheme_.spec().matching_eps);
  if (!with_sums) return args;
  args.u = in<C>(pending_);
  args.running = static_cast<int>(sums());
  const int64_t before = writes_ - (pending_.defined() ? 1 : 0);
  float* const summary = row(bank_, first_row(block_));
  for (int64_t s = 0; s < sums(); ++s) {
    kernels::RunningSum& sum = args.sums[s];
    float* const own = row(bank_, first_row(block_) + s);
    if (before == writes_) {  // nothing to write
      if (!is_summary(block_, writes_, s)) sum.in = own;
    } else {
      if (before > 0) sum.in = is_summary(block_, before, s) ? summary : own;
      if (!is_summary(block_, writes_, s)) sum.out = own;
    }
    sum.sign = static_cast<float>(sign(block_, writes_ - 1, s));
    sum.read = s == 0 || scheme_.spec().partial_details;
  }
  return args;
}

// Puts the pending update into its sums.
void FusedRoutedStream::flush() {
  if (!pending_.defined()) return;
  ops::with_type(pending_.scalar_type(), [&]<typename C>() {
    kernels::WriteRead<C> args = write_read_arguments<C>(/*with_sums=*/true);
    args.reads = false;
    const auto kernel = kernels::chosen_kernels().running->of<C>().write_read;
    ops::parallel_for(tokens_, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
  pending_.reset();
}

void FusedRoutedStream::finish_block() {
  if (writes_ == 0) return;
  flush();
  for (int64_t s = 0; s < sums(); ++s) measure(first_row(block_) + s, first_row(block_));
  writes_ = 0;
}

// The first sublayer reads e itself.
at::Tensor FusedRoutedStream::read_embedding(const PreNorm& norm) {
  const ops::Normed normed =
      ops::add_norm(arena_, bank_[0].view(shape_), {}, norm_of(norm), norm.type);
  if (record_) records_.push_back({normed.h, normed.inverse_rms, {}});
  return normed.x;
}

// x of the reader at `position` of `block`; of the read-out at position 0 of the block after the
// last one.
at::Tensor FusedRoutedStream::merge(int64_t block, int64_t position, const PreNorm& norm) {
  const at::NoGradGuard no_grad;
  if (position == 0) finish_block();
  const bool routed = block > 0 || position > 0;
  if (!routed) return read_embedding(norm);
  if (pending_.defined() && pending_.scalar_type() != norm.type) flush();
  enter(block, position);
  Group& group = groups_.at(block);
  const int64_t router = position;
  Record record;
  const ops::Norm pre = norm_of(norm);
  at::Tensor x = arena_.empty(shape_, norm.type);
  if (record_) {
    record.h = arena_.empty({tokens_, d_}, at::kFloat);
    if (norm.gain != nullptr) record.inverse_rms = arena_.empty({tokens_}, at::kFloat);
  }
  ops::with_type(norm.type, [&]<typename C>() {
    kernels::WriteRead<C> args = write_read_arguments<C>(/*with_sums=*/position > 0);
    for (int s = 0; s < args.running; ++s) {
      kernels::RunningSum& sum = args.sums[s];
      sum.bias = bias_of(*group.routers[static_cast<size_t>(router)], s);
      if (!record_) continue;
      float* const kept = row(group.running, router) + 3 * s * tokens_;
      sum.dot = kept;
      sum.ratio = kept + tokens_;
      sum.inverse = kept + 2 * tokens_;
    }
    args.query = row(group.query, router);
    args.peak = row(group.peak, router);
    args.mass = row(group.mass, router);
    args.mixed = row(group.mixed, group.two_phase ? router : 0);
    args.lse = record_ ? row(group.lse, router) : nullptr;
    args.gain = in<float>(pre.gain);
    args.h = out<float>(record.h);
    args.x = out<C>(x);
    args.inverse_rms = out<float>(record.inverse_rms);
    const auto kernel = kernels::chosen_kernels().running->of<C>().write_read;
    ops::for_chunks(tokens_, [&](int64_t, int64_t begin, int64_t end) {
      if (!group.two_phase) mix(group, router, 1, begin, end);
      kernel(args, begin, end);
    });
  });
  pending_.reset();
  if (record_) records_.push_back(std::move(record));
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
  if (writes_ > 0) result.push_back(bank_.narrow(0, first_row(block_), sums()).clone());
  return result;
}

void FusedRoutedStream::restore(const StreamSnapshot& snapshot) {
  const at::NoGradGuard no_grad;
  block_ = in<int64_t>(snapshot[0])[0];
  writes_ = in<int64_t>(snapshot[0])[1];
  if (writes_ > 0) bank_.narrow(0, first_row(block_), sums()).copy_(snapshot[1]);
  pending_.reset();
  records_.clear();
  group_block_ = -1;
}

}  // namespace wavroute
