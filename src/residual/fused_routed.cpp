#include "residual/fused_routed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

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

// Pointers to rows of `all` [rows, tokens, ...].
template <typename T>
std::vector<T*> pointers(const at::Tensor& all, std::span<const int64_t> rows) {
  std::vector<T*> result;
  for (const int64_t row : rows) result.push_back(out<float>(all) + row * all.stride(0));
  return result;
}

const float* detail_bias(const Router& router, int64_t sum) {
  return in<float>(router.bias->value) + (sum - 1);
}

// The gradient of w and g from t = that of q = w * g.
void add_query_grad(const Router& router, const float* t) {
  const float* query = in<float>(router.query->value);
  const float* gain = in<float>(router.gain->value);
  float* query_grad = out<float>(router.query->value.grad());
  float* gain_grad = out<float>(router.gain->value.grad());
  for (int64_t c = 0; c < router.gain->count(); ++c) {
    query_grad[c] += gain[c] * t[c];
    gain_grad[c] += query[c] * t[c];
  }
}

}  // namespace

FusedRoutedStream::FusedRoutedStream(const RoutedResidual& scheme, const StreamOptions& options)
    : Stream(options), scheme_(scheme), arena_(*options.arena) {}

// ---- what is where -----------------------------------------------------------------------------

Site FusedRoutedStream::site_at(int64_t block, int64_t position) const {
  const int64_t index = block * blocks().length + position;
  return {index / 2, index % 2 == 0 ? SublayerKind::kAttention : SublayerKind::kMlp, index / 2};
}

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

float* FusedRoutedStream::row(const at::Tensor& of, int64_t index) const {
  return out<float>(of) + index * of.stride(0);
}

// ---- phase 1 -----------------------------------------------------------------------------------

FusedRoutedStream::Group FusedRoutedStream::make_group(int64_t block) const {
  Group group;
  group.rows = {0};
  group.bases = {-1};
  for (int64_t earlier = 0; earlier < block; ++earlier) {
    for (int64_t sum = 0; sum < sums(); ++sum) {
      group.rows.push_back(first_row(earlier) + sum);
      group.bases.push_back(sum - 1);
    }
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
      const int64_t basis = group.bases[static_cast<size_t>(j)];
      if (basis >= 0) row(group.bias, r)[j] = *detail_bias(router, basis + 1);
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

void FusedRoutedStream::mix(Group& group, int64_t router, int64_t routers, int64_t begin,
                            int64_t end) const {
  const auto rows = pointers<const float>(bank_, group.rows);
  const auto ratios = pointers<const float>(ratio_, group.rows);
  const auto inverses = pointers<const float>(inverse_, group.rows);
  kernels::MixFinished<float> args;
  args.d = d_;
  args.tokens = tokens_;
  args.sources = static_cast<int64_t>(rows.size());
  args.routers = routers;
  args.rows = rows.data();
  args.ratio = ratios.data();
  args.inverse = inverses.data();
  args.query = row(group.query, router);
  args.bias = row(group.bias, router);
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

// The sums of the block being written, after `writes_` updates of which the last is pending or
// already in them.
template <typename C>
void FusedRoutedStream::set_running(kernels::WriteRead<C>& args) const {
  args.d = d_;
  args.u = in<C>(pending_);
  args.running = static_cast<int>(sums());
  const int64_t before = writes_ - (pending_.defined() ? 1 : 0);
  for (int64_t s = 0; s < sums(); ++s) {
    kernels::RunningSum& sum = args.sums[s];
    float* const own = row(bank_, first_row(block_) + s);
    if (before == writes_) {  // nothing to write
      if (!is_summary(block_, writes_, s)) sum.in = own;
    } else {
      if (before > 0) sum.in = is_summary(block_, before, s) ? row(bank_, first_row(block_)) : own;
      if (!is_summary(block_, writes_, s)) sum.out = own;
    }
    sum.sign = static_cast<float>(sign(block_, writes_ - 1, s));
    sum.read = s == 0 || scheme_.spec().partial_details;
  }
  args.norm_eps = static_cast<float>(scheme_.spec().norm_eps);
  args.matching_eps = static_cast<float>(scheme_.spec().matching_eps);
}

// Puts the pending update into its sums.
void FusedRoutedStream::flush() {
  if (!pending_.defined()) return;
  ops::with_type(pending_.scalar_type(), [&]<typename C>() {
    kernels::WriteRead<C> args;
    set_running(args);
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
    kernels::WriteRead<C> args;
    if (position > 0) set_running(args);
    args.d = d_;
    for (int s = 0; s < args.running; ++s) {
      kernels::RunningSum& sum = args.sums[s];
      if (s > 0) sum.bias = *detail_bias(*group.routers[static_cast<size_t>(router)], s);
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
    args.norm_eps = static_cast<float>(scheme_.spec().norm_eps);
    args.matching_eps = static_cast<float>(scheme_.spec().matching_eps);
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
at::Tensor FusedRoutedStream::read(const Site& site) { return read_normed(site, {}); }
at::Tensor FusedRoutedStream::read_out() { return read_out_normed({}); }

// ---- backward ----------------------------------------------------------------------------------

// The gradient of an update that no later sublayer of its block reads.
at::Tensor FusedRoutedStream::write_backward(const Site& site) {
  const at::NoGradGuard no_grad;
  flush();  // recomputation: no read followed the last write
  const at::ScalarType type = records_.back().update.scalar_type();
  at::Tensor du = std::move(next_du_);
  if (!du.defined()) {
    const int64_t block = blocks().block_of(site.index());
    const int64_t position = blocks().position_of(site.index());
    du = grad_[first_row(block)];
    for (int64_t s = 1; s < sums(); ++s) {
      du = at::add(du, grad_[first_row(block) + s], sign(block, position, s));
    }
  }
  return du.to(type).view(shape_);
}

void FusedRoutedStream::merge_backward(int64_t block, int64_t position, const PreNorm& norm,
                                       const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  const Record record = std::move(records_.back());
  records_.pop_back();
  if (block == 0 && position == 0) {
    if (groups_.contains(0)) mix_backward(0);
    (void)ops::add_norm_backward(arena_, grad.contiguous(), {record.h, {}, record.inverse_rms},
                                 norm_of(norm), {}, grad_[0].view(shape_), /*first=*/false);
    return;
  }
  Group& group = groups_.at(block);
  const auto routers = static_cast<int64_t>(group.routers.size());
  if (!group.dh.defined()) {
    group.dh = arena_.empty({routers, tokens_, d_}, at::kFloat);
    group.along = arena_.empty({routers, tokens_}, at::kFloat);
  }
  const Router& router = *group.routers[static_cast<size_t>(position)];
  const ops::Norm pre = norm_of(norm);
  const at::Tensor dx = grad.contiguous();
  const at::Tensor undone = position > 0 ? record.update.to(norm.type) : at::Tensor();
  if (position > 0) next_du_ = arena_.empty({tokens_, d_}, norm.type);
  const int64_t chunks = ops::chunk_count(tokens_);
  const ops::PartialSums gain_grad(arena_, chunks, d_, norm.gain != nullptr);
  const ops::PartialSums query_grad(arena_, chunks, d_);
  const ops::PartialSums bias_grad(arena_, chunks, sums());
  ops::with_type(norm.type, [&]<typename C>() {
    kernels::ReadBackward<C> args;
    args.d = d_;
    args.dx = in<C>(dx);
    args.h = in<float>(record.h);
    args.inverse_rms = in<float>(record.inverse_rms);
    args.gain = in<float>(pre.gain);
    args.undone = in<C>(undone);
    if (position > 0) set_undone(args, group, block, position);
    args.query = row(group.query, position);
    args.lse = row(group.lse, position);
    args.dh = row(group.dh, position);
    args.along = row(group.along, position);
    args.du = position > 0 ? out<C>(next_du_) : nullptr;
    const auto kernel = kernels::chosen_kernels().running->of<C>().read_backward;
    ops::for_chunks(tokens_, [&](int64_t chunk, int64_t begin, int64_t end) {
      kernels::ReadBackward<C> own = args;
      own.gain_grad = gain_grad.of(chunk);
      own.query_grad = query_grad.of(chunk);
      for (int s = 1; s < own.running; ++s) own.sums[s].bias_grad = bias_grad.of(chunk) + s;
      kernel(own, begin, end);
    });
  });
  if (norm.gain != nullptr) gain_grad.add_to(out<float>(pre.gain_grad));
  if (position > 0) {
    add_query_grad(router, query_grad.total().data());
    const std::vector<float> bias = bias_grad.total();
    for (int64_t s = 1; s < sums(); ++s) {
      out<float>(router.bias->value.grad())[s - 1] += bias[static_cast<size_t>(s)];
    }
  }
  if (position == 0) mix_backward(block);
}

// The running sums of the read at `position`, which the update after it is taken out of.
template <typename C>
void FusedRoutedStream::set_undone(kernels::ReadBackward<C>& args, const Group& group,
                                   int64_t block, int64_t position) const {
  args.running = static_cast<int>(sums());
  const Router& router = *group.routers[static_cast<size_t>(position)];
  for (int64_t s = 0; s < sums(); ++s) {
    kernels::RunningGrad& sum = args.sums[s];
    float* const own = row(bank_, first_row(block) + s);
    if (!is_summary(block, position + 1, s)) sum.in = own;
    if (!is_summary(block, position, s)) sum.out = own;
    sum.undo = static_cast<float>(sign(block, position, s));
    sum.sign = static_cast<float>(sign(block, position - 1, s));
    sum.read = s == 0 || scheme_.spec().partial_details;
    sum.bias = s > 0 ? *detail_bias(router, s) : 0.0F;
    const float* kept = row(group.running, position) + 3 * s * tokens_;
    sum.dot = kept;
    sum.ratio = kept + tokens_;
    sum.inverse = kept + 2 * tokens_;
    sum.grad = row(grad_, first_row(block) + s);
  }
}

// The finished sources' part in all readers of a block.
void FusedRoutedStream::mix_backward(int64_t block) {
  const Group group = std::move(groups_.at(block));
  groups_.erase(block);
  const int64_t skipped = block == 0 ? 1 : 0;  // the first sublayer has no router
  const int64_t routers = static_cast<int64_t>(group.routers.size()) - skipped;
  const auto rows = pointers<const float>(bank_, group.rows);
  const auto ratios = pointers<const float>(ratio_, group.rows);
  const auto inverses = pointers<const float>(inverse_, group.rows);
  const auto grads = pointers<float>(grad_, group.rows);
  const auto sources = static_cast<int64_t>(rows.size());
  // The read-out comes first in the backward, and reads every row.
  const auto first = std::make_unique<bool[]>(rows.size());
  std::fill_n(first.get(), rows.size(), block == blocks().count);
  const int64_t chunks = ops::chunk_count(tokens_);
  const ops::PartialSums query_grad(arena_, chunks, routers * d_);
  const ops::PartialSums bias_grad(arena_, chunks, routers * sources);
  kernels::MixFinishedBackward<float> args;
  args.d = d_;
  args.tokens = tokens_;
  args.sources = sources;
  args.routers = routers;
  args.rows = rows.data();
  args.ratio = ratios.data();
  args.inverse = inverses.data();
  args.query = row(group.query, skipped);
  args.bias = row(group.bias, skipped);
  args.logits = row(group.logits, skipped);
  args.lse = row(group.lse, skipped);
  args.along = row(group.along, skipped);
  args.dh = row(group.dh, skipped);
  args.grads = grads.data();
  args.first = first.get();
  const auto kernel = kernels::chosen_kernels().finished->fp32.mix_backward;
  ops::for_chunks(tokens_, [&](int64_t chunk, int64_t begin, int64_t end) {
    kernels::MixFinishedBackward<float> own = args;
    own.query_grad = query_grad.of(chunk);
    own.bias_grad = bias_grad.of(chunk);
    kernel(own, begin, end);
  });
  const std::vector<float> t = query_grad.total(), bias = bias_grad.total();
  for (int64_t r = 0; r < routers; ++r) {
    const Router& router = *group.routers[static_cast<size_t>(r + skipped)];
    add_query_grad(router, t.data() + r * d_);
    for (int64_t j = 0; j < sources; ++j) {
      const int64_t basis = group.bases[static_cast<size_t>(j)];
      if (basis < 0) continue;
      out<float>(router.bias->value.grad())[basis] += bias[static_cast<size_t>(r * sources + j)];
    }
  }
}

void FusedRoutedStream::read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                                 double) {
  grad_ = arena_.empty_like(bank_);
  merge_backward(blocks().count, 0, norm, grad);
}
void FusedRoutedStream::read_normed_backward(const Site& site, const PreNorm& norm,
                                             const at::Tensor& grad) {
  merge_backward(blocks().block_of(site.index()), blocks().position_of(site.index()), norm, grad);
}
void FusedRoutedStream::read_out_backward(const at::Tensor& grad, double auxiliary_grad) {
  read_out_normed_backward({}, grad, auxiliary_grad);
}
void FusedRoutedStream::read_backward(const Site& site, const at::Tensor& grad) {
  read_normed_backward(site, {}, grad);
}

at::Tensor FusedRoutedStream::begin_backward() { return grad_[0].view(shape_); }

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
