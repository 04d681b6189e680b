// The backward half of PartsStream.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "residual/parts_stream.h"
#include "residual/prenorm_op.h"

namespace wavroute {

// If a reader followed the write, its backward has already computed du.
at::Tensor PartsStream::write_backward(const Site& site) {
  const at::NoGradGuard no_grad;
  if (next_du_.defined()) return std::exchange(next_du_, {}).to(update_type_).view(shape_);
  const int64_t block = blocks().block_of(site.index());
  const int64_t position = blocks().position_of(site.index());
  std::vector<ops::SignedGrad> grads;
  for (int64_t s = 0; s < sums(); ++s) {
    grads.push_back({at_row(grad_, first_row(block) + s), sign(block, position, s)});
  }
  at::Tensor du = memory_.empty(shape_, update_type_);
  routes_.add_signed(grads, du);
  return du;
}

// The gradients of the forms that the reader at `position` saw go to the sums that are these forms.
// Sums that are one form from here on join theirs.
void PartsStream::collect_forms(ops::RunningReadBackward& read, const Record& record, int64_t block,
                                int64_t position) const {
  const Arrangement& now = arrangement(block, position);
  Arrangement later = arrangement(block, position + 1);
  if (position + 1 == blocks().length_of(block)) later.form = {0, 1, 2};  // finished: each its own
  read.parts = parts_of(now, record.parts);
  read.sources = sources_of(now);
  const int last = slot(block, position - 1);
  for (int s = 0; s < static_cast<int>(sums()); ++s) {
    const int form = now.form[static_cast<size_t>(s)];
    ops::FormGrad& own = read.forms[static_cast<size_t>(form)];
    const at::Tensor& grad = at_row(grad_, first_row(block) + s);
    if (owner(now, form) == s) {
      own.grad = grad;
      own.sign = form > 0 && (last >> (s - 1) & 1) != 0 ? -1.0F : 1.0F;
    } else if (owner(later, later.form[static_cast<size_t>(s)]) == s) {
      if (!own.joined.defined()) {
        own.joined = grad;
      } else {
        at_row(grad_, first_row(block) + owner(now, form)).add_(grad);
      }
    }
  }
}

void PartsStream::merge_backward(int64_t block, int64_t position, const PreNorm& norm,
                                 const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  const Record record = std::move(records_.back());
  records_.pop_back();
  if (block == 0 && position == 0) {
    if (readers_.contains(0)) mix_backward(0);
    (void)backend().add_norm_backward(grad, {record.h, {}, record.inverse_rms}, norm_of(norm), {},
                                      grad_[0].view(shape_), /*first=*/false);
    return;
  }
  Readers& readers = readers_.at(block);
  ops::RouterGroup& group = readers.group;
  if (!group.dh.defined()) {
    group.dh = memory_.empty_apart(readers.count(), {tokens_, d_}, norm.type);
    group.along = memory_.empty_apart(readers.count(), {tokens_});
  }
  TORCH_INTERNAL_ASSERT(group.dh.scalar_type() == norm.type, "a block has one type");

  const ops::Norm pre = norm_of(norm);
  ops::RunningReadBackward read;
  read.group = &group;
  read.router = position;
  read.dx = grad.reshape({tokens_, d_}).contiguous();
  read.h = record.h;
  read.inverse_rms = record.inverse_rms;
  read.gain = pre.gain;
  read.gain_grad = pre.gain_grad;
  if (position > 0) {
    collect_forms(read, record, block, position);
    read.du = next_du_ = memory_.empty({tokens_, d_}, norm.type);
    read.query_grad = memory_.empty({d_}, at::kFloat).zero_();
    read.bias_grad = memory_.empty({read.sources.count}, at::kFloat).zero_();
  }
  routes_.read_backward(read);
  if (position > 0) {
    constexpr std::array<int64_t, ops::kMostRunning> kSums = {0, 1, 2};
    const auto sources = static_cast<size_t>(read.sources.count);
    routes_.add_router_grads({&readers.parameters[static_cast<size_t>(position)], 1},
                             std::span(kSums).first(sources), read.query_grad.unsqueeze(0),
                             read.bias_grad.unsqueeze(0));
    return;
  }
  mix_backward(block);
}

// The finished sources' share in all readers of a block.
void PartsStream::mix_backward(int64_t block) {
  const Readers readers = std::move(readers_.at(block));
  readers_.erase(block);
  const int64_t skipped = block == 0 ? 1 : 0;  // the first sublayer has no router
  ops::PhaseOneBackward mix;
  mix.group = &readers.group;
  mix.first = skipped;
  mix.count = readers.count() - skipped;
  mix.source_grads = std::span(grad_).first(readers.sums.size());
  mix.sets = block == blocks().count;  // the read-out comes first in the backward, and reads all
  mix.query_grad = memory_.empty({mix.count, d_}, at::kFloat).zero_();
  mix.bias_grad =
      memory_.empty({mix.count, static_cast<int64_t>(readers.sums.size())}, at::kFloat).zero_();
  routes_.mix_backward(mix);
  routes_.add_router_grads(std::span(readers.parameters).subspan(static_cast<size_t>(skipped)),
                           readers.sums, mix.query_grad, mix.bias_grad);
}

void PartsStream::read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad, double) {
  grad_ = memory_.empty_apart(first_row(blocks().count), {tokens_, d_}).unbind();
  merge_backward(blocks().count, 0, norm, grad);
}
void PartsStream::read_normed_backward(const Site& site, const PreNorm& norm,
                                       const at::Tensor& grad) {
  merge_backward(blocks().block_of(site.index()), blocks().position_of(site.index()), norm, grad);
}

at::Tensor PartsStream::begin_backward() { return grad_[0].view(shape_); }

}  // namespace wavroute
