#include "residual/parts_stream.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "residual/prenorm_op.h"

namespace wavroute {
namespace {

// Phase 1 for a whole block reads n sources once and writes every router's mixture to memory;
// router by router n sources are read each time, and the mixture stays in the cache. By `bench op
// route_mix` and `route_mix_each`, writing and reading a mixture costs about as much as one more
// source.
bool two_phase_wins(int64_t sources, int64_t routers) { return sources * (routers - 1) > routers; }

ops::RouterParameters parameters_of(const Router& router) {
  if (router.query == nullptr) return {};
  ops::RouterParameters result{router.query->value,
                               router.query->value.grad(),
                               router.gain->value,
                               router.gain->value.grad(),
                               {},
                               {}};
  if (router.bias != nullptr) {
    result.bias = router.bias->value;
    result.bias_grad = router.bias->value.grad();
  }
  return result;
}

}  // namespace

PartsStream::PartsStream(const RoutedResidual& scheme, const StreamOptions& options)
    : NormedStream(options),
      scheme_(scheme),
      routes_(*options.backend->routes()),
      memory_(options.backend->memory()) {
  for (int64_t block = 0; block < blocks().count; ++block) {
    Slots slots = 0;
    for (int64_t writes = 0; writes <= blocks().length; ++writes) {
      slots_after_.push_back(slots);
      if (writes < blocks().length_of(block)) slots |= 1U << slot(block, writes);
    }
  }
  for (Slots written = 0; written < 1U << ops::kMostParts; ++written) {
    arrangements_.push_back(make_arrangement(written));
  }
}

bool PartsStream::can_begin_again(const StreamOptions& options) const {
  return !record_ && !options.record && options.backend == options_.backend &&
         options.taps == nullptr && options_.order == LayerOrder::kPlain &&
         options.order == LayerOrder::kPlain;
}

// ---- parts and forms ---------------------------------------------------------------------------

float PartsStream::sign(int64_t block, int64_t position, int64_t sum) const {
  if (sum == 0) return 1.0F;
  const DetailBasis& basis = scheme_.spec().details[static_cast<size_t>(sum - 1)];
  return static_cast<float>(
      basis.sign(site_at(block, position), position, blocks().length_of(block)));
}

int PartsStream::slot(int64_t block, int64_t position) const {
  int bits = 0;
  for (int64_t s = 1; s < sums(); ++s) {
    if (sign(block, position, s) < 0.0F) bits |= 1 << (s - 1);
  }
  return bits;
}

// The first update of a block is positive in every sum, so that slot 0 comes first. Where a layer
// program leaves it out, only the forms of all four parts have the others' signs.
PartsStream::Arrangement PartsStream::make_arrangement(Slots written) const {
  Arrangement found;
  for (int k = 0; k < ops::kMostParts; ++k) {
    if ((written >> k & 1U) != 0) found.slot[static_cast<size_t>(found.count++)] = k;
  }
  if (found.count > 2 || (written != 0 && (written & 1U) == 0)) {
    found.count = ops::kMostParts;
    found.slot = {0, 1, 2, 3};
  }
  for (int s = 1; s < static_cast<int>(sums()); ++s) {
    int& form = found.form[static_cast<size_t>(s)];
    if (found.count == 2) form = found.slot[1] >> (s - 1) & 1;
    if (found.count == ops::kMostParts) form = s;
  }
  return found;
}

int PartsStream::owner(const Arrangement& arrangement, int form) {
  const auto place = std::find(arrangement.form.begin(), arrangement.form.end(), form);
  return static_cast<int>(place - arrangement.form.begin());
}

ops::RunningForms PartsStream::sources_of(const Arrangement& arrangement) const {
  return {scheme_.spec().partial_details ? static_cast<int>(sums()) : 1, arrangement.form};
}

ops::RunningParts PartsStream::parts_of(const Arrangement& arrangement, const PartRows& rows) {
  ops::RunningParts parts;
  parts.count = arrangement.count;
  for (size_t k = 0; k < static_cast<size_t>(arrangement.count); ++k) {
    parts.row[k] = rows[static_cast<size_t>(arrangement.slot[k])];
  }
  return parts;
}

// ---- phase 1 -----------------------------------------------------------------------------------

PartsStream::Readers PartsStream::make_readers(int64_t block) const {
  Readers readers;
  ops::RouterGroup& group = readers.group;
  const int64_t sources = rows_;
  readers.sums.push_back(0);
  for (int64_t row = 1; row < sources; ++row) readers.sums.push_back((row - 1) % sums());
  group.sources = {{bank_.begin(), bank_.begin() + sources},
                   ratio_.narrow(0, 0, sources),
                   inverse_.narrow(0, 0, sources)};
  if (block == blocks().count) {
    readers.parameters.push_back(parameters_of(scheme_.router(std::nullopt)));
  } else {
    for (int64_t i = 0; i < blocks().length_of(block); ++i) {
      readers.parameters.push_back(parameters_of(scheme_.router(site_at(block, i))));
    }
  }
  const int64_t routers = readers.count();
  group.routers = routes_.gather_routers(readers.parameters, readers.sums, sums(), d_);
  group.peak = memory_.empty_apart(routers, {tokens_});
  group.mass = memory_.empty_apart(routers, {tokens_});
  if (record_) {
    group.logits = memory_.empty_apart(routers * sources, {tokens_});
    group.lse = memory_.empty_apart(routers, {tokens_});
    group.running = memory_.empty_apart(routers * sums() * 3, {tokens_});
  }
  return readers;
}

PartsStream::Readers& PartsStream::enter(int64_t block, int64_t position, at::ScalarType type) {
  if (block == readers_block_) {
    TORCH_INTERNAL_ASSERT(readers_.at(block).group.mixed.scalar_type() == type,
                          "a block has one type");
    return readers_.at(block);
  }
  const bool few = tokens_ <= ops::kFewTokens;
  if (!record_ && !few) readers_.clear();
  if (record_ && readers_block_ >= 0 && readers_.contains(readers_block_)) {
    readers_[readers_block_].group.mixed.reset();
  }
  readers_block_ = block;
  // Recomputation returns to a block: its backward needs what the block's later readers stored.
  auto [place, fresh] = readers_.try_emplace(block);
  Readers& readers = place->second;
  if (fresh || (record_ && !readers.group.logits.defined())) readers = make_readers(block);
  at::Tensor& mixed = readers.group.mixed;
  readers.mixed_all = false;
  if (!record_ && mixed.defined() && mixed.scalar_type() == type) return readers;
  const int64_t routers = readers.count();
  const bool enters = block > 0 && (position == 0 || options_.order != LayerOrder::kPlain);
  readers.two_phase = enters && two_phase_wins(rows_, routers);
  mixed = memory_.empty_apart(readers.two_phase ? routers : 1, {tokens_, d_}, type);
  return readers;
}

// ---- forward -----------------------------------------------------------------------------------

void PartsStream::begin(const at::Tensor& embedding) {
  const at::NoGradGuard no_grad;
  if (record_ || embedding.sizes() != at::IntArrayRef(shape_)) {
    shape_ = embedding.sizes().vec();
    d_ = embedding.size(-1);
    tokens_ = embedding.numel() / d_;
    const int64_t rows = first_row(blocks().count);
    bank_ = memory_.empty_apart(rows, {tokens_, d_}).unbind();
    ratio_ = memory_.empty_apart(rows, {tokens_});
    inverse_ = memory_.empty_apart(rows, {tokens_});
    readers_.clear();
  }
  rows_ = 1;
  block_ = writes_ = 0;
  written_ = 0;
  parts_ = {};
  readers_block_ = -1;
  bank_[0].copy_(embedding.reshape({tokens_, d_}));
  routes_.source_scalars(bank_[0], bank_[0], eps(), ratio_[0], inverse_[0]);
}

void PartsStream::write(const Site& site, const at::Tensor& update) {
  pending_ = update.contiguous();
  update_type_ = pending_.scalar_type();
  pending_slot_ = slot(block_, blocks().position_of(site.index()));
  written_ |= 1U << pending_slot_;
  ++writes_;
}

// The pending update, with a new row for its part: rows that a reader used don't change. The first
// update of a part needs no new row if it is already float.
ops::PartWrite PartsStream::take_pending() {
  if (!pending_.defined()) return {};
  at::Tensor& part = parts_[static_cast<size_t>(pending_slot_)];
  ops::PartWrite write;
  write.u = std::move(pending_);
  write.before = part;
  pending_.reset();
  if (!part.defined() && write.u.scalar_type() == at::kFloat) {
    part = write.u.view({tokens_, d_});
    return {};
  }
  part = write.after = memory_.empty({tokens_, d_}, at::kFloat);
  const std::array<int, ops::kMostParts>& slots = arrangements_[written_].slot;
  write.part =
      static_cast<int>(std::find(slots.begin(), slots.end(), pending_slot_) - slots.begin());
  return write;
}

// Adds the pending update to its part when no reader follows.
void PartsStream::flush() {
  if (!pending_.defined()) return;
  at::Tensor& part = parts_[static_cast<size_t>(pending_slot_)];
  const at::Tensor update = pending_.view({tokens_, d_});
  pending_.reset();
  if (!part.defined() && update.scalar_type() == at::kFloat) {
    part = update;
    return;
  }
  at::Tensor sum = memory_.empty({tokens_, d_}, at::kFloat);
  part = part.defined() ? at::add_out(sum, part, update) : sum.copy_(update);
}

// The first sublayer reads e itself.
at::Tensor PartsStream::read_embedding(const PreNorm& norm) {
  flush();  // where a program runs it again
  const ops::Normed normed =
      backend().add_norm(bank_[0].view(shape_), {}, norm_of(norm), norm.type);
  if (record_) records_.push_back({normed.h, normed.inverse_rms, {}});
  return normed.x;
}

// The end of the block that was read and written: its sums become rows of the bank.
ops::BlockEnd PartsStream::end_block(at::ScalarType type) {
  ops::BlockEnd end;
  const Arrangement& last = arrangements_[written_];
  end.type = type;
  end.write = take_pending();
  end.parts = parts_of(last, parts_);
  end.sums = {static_cast<int>(sums()), last.form};
  end.eps = eps();
  for (int64_t s = 0; s < sums(); ++s) {
    end.row[static_cast<size_t>(s)] = at_row(bank_, rows_);
    end.ratio[static_cast<size_t>(s)] = ratio_[rows_];
    end.inverse[static_cast<size_t>(s)] = inverse_[rows_];
    ++rows_;
  }
  parts_ = {};
  writes_ = 0;
  written_ = 0;
  return end;
}

// x of the reader at `position` of `block`; of the read-out at position 0 of the block after the
// last one.
at::Tensor PartsStream::merge(int64_t block, int64_t position, const PreNorm& norm) {
  const at::NoGradGuard no_grad;
  if (block == 0 && position == 0) return read_embedding(norm);
  if (pending_.defined() && pending_.scalar_type() != norm.type) flush();
  std::optional<ops::BlockEnd> end;
  if (block != block_ && writes_ > 0) end = end_block(norm.type);
  block_ = block;
  Readers& readers = enter(block, position, norm.type);

  ops::RunningRead read;
  read.group = &readers.group;
  read.router = position;
  read.eps = eps();
  if (writes_ > 0) {
    const Arrangement& now = arrangements_[written_];
    read.write = take_pending();
    read.parts = parts_of(now, parts_);
    read.sources = sources_of(now);
  }
  read.gain = norm_of(norm).gain;
  read.x = memory_.empty(shape_, norm.type);
  if (record_) {
    read.h = memory_.empty({tokens_, d_}, norm.type);
    if (norm.gain != nullptr) read.inverse_rms = memory_.empty({tokens_}, at::kFloat);
  }
  const ops::PhaseOne all{&readers.group, 0, readers.count()}, own{&readers.group, position, 1};
  const ops::PhaseOne* mix = !readers.two_phase ? &own : readers.mixed_all ? nullptr : &all;
  readers.mixed_all = true;
  routes_.read(read, mix, end ? &*end : nullptr);
  if (record_) records_.push_back({read.h, read.inverse_rms, parts_});
  return read.x;
}

at::Tensor PartsStream::read_normed(const Site& site, const PreNorm& norm) {
  return merge(blocks().block_of(site.index()), blocks().position_of(site.index()), norm);
}
at::Tensor PartsStream::read_out_normed(const PreNorm& norm) {
  return merge(blocks().count, 0, norm);
}

// ---- recomputation -----------------------------------------------------------------------------

StreamSnapshot PartsStream::snapshot() {
  const at::NoGradGuard no_grad;
  flush();
  StreamSnapshot result = {at::tensor({block_, writes_}, at::kLong)};
  result.insert(result.end(), parts_.begin(), parts_.end());
  return result;
}

void PartsStream::restore(const StreamSnapshot& snapshot) {
  block_ = snapshot[0].const_data_ptr<int64_t>()[0];
  writes_ = snapshot[0].const_data_ptr<int64_t>()[1];
  written_ = slots_after(block_, writes_);
  rows_ = first_row(block_);
  std::copy(snapshot.begin() + 1, snapshot.end(), parts_.begin());
  pending_.reset();
  records_.clear();
  readers_block_ = -1;
}

}  // namespace wavroute
