// The backward half of FusedRoutedStream.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <memory>

#include "ops/parallel.h"
#include "ops/typed.h"
#include "residual/fused_routed.h"
#include "residual/prenorm_op.h"

namespace wavroute {
namespace {

using ops::in;
using ops::out;

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

// Where a reader followed the write, its backward has made du already.
at::Tensor FusedRoutedStream::write_backward(const Site& site) {
  const at::NoGradGuard no_grad;
  if (next_du_.defined()) return std::exchange(next_du_, {}).to(update_type_).view(shape_);
  const int64_t block = blocks().block_of(site.index());
  const int64_t position = blocks().position_of(site.index());
  const at::Tensor du = arena_.empty(shape_, update_type_);
  ops::with_type(update_type_, [&]<typename C>() {
    kernels::UpdateGrad<C> args;
    args.d = d_;
    args.sums = static_cast<int>(sums());
    for (int s = 0; s < args.sums; ++s) {
      args.grad[s] = row(grad_, first_row(block) + s);
      args.sign[s] = sign(block, position, s);
    }
    args.du = out<C>(du);
    const auto kernel = kernels::chosen_kernels().running->of<C>().update_grad;
    ops::for_chunks(tokens_,
                    [&](int64_t, int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
  return du;
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
    group.dh = arena_.empty_apart(routers, {tokens_, d_}, norm.type);
    group.along = arena_.empty_apart(routers, {tokens_});
  }
  TORCH_INTERNAL_ASSERT(group.dh.scalar_type() == norm.type, "a block has one type");
  const Router& router = *group.routers[static_cast<size_t>(position)];
  const ops::Norm pre = norm_of(norm);
  const at::Tensor dx = grad.contiguous();
  if (position > 0) next_du_ = arena_.empty({tokens_, d_}, norm.type);
  const int64_t chunks = ops::chunk_count(tokens_);
  const ops::PartialSums gain_grad(arena_, chunks, d_, norm.gain != nullptr);
  const ops::PartialSums query_grad(arena_, chunks, d_, position > 0);
  const ops::PartialSums bias_grad(arena_, chunks, sums(), position > 0);
  ops::with_type(norm.type, [&]<typename C>() {
    kernels::ReadBackward<C> args;
    args.d = d_;
    args.dx = in<C>(dx);
    args.h = in<C>(record.h);
    args.inverse_rms = in<float>(record.inverse_rms);
    args.gain = in<float>(pre.gain);
    if (position > 0) set_running(args, group, record, block, position);
    args.query = row(group.query, position);
    args.lse = row(group.lse, position);
    args.dh = row<C>(group.dh, position);
    args.along = row(group.along, position);
    args.du = position > 0 ? out<C>(next_du_) : nullptr;
    const auto kernel = kernels::chosen_kernels().running->of<C>().read_backward;
    ops::for_chunks(tokens_, [&](int64_t chunk, int64_t begin, int64_t end) {
      kernels::ReadBackward<C> own = args;
      own.gain_grad = gain_grad.of(chunk);
      own.query_grad = query_grad.of(chunk);
      for (int s = 1; s < own.running; ++s) own.sources[s].bias_grad = bias_grad.of(chunk) + s;
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

// The running sources of the reader at `position`, and where the gradients of their forms are
// collected: sums that are the same form from here on join theirs.
template <typename C>
void FusedRoutedStream::set_running(kernels::ReadBackward<C>& args, const Group& group,
                                    const Record& record, int64_t block, int64_t position) const {
  const Layout now = layout(block, position);
  Layout later = layout(block, position + 1);
  if (position + 1 == blocks().length_of(block)) later.form = {0, 1, 2};  // finished: each its own
  args.parts = parts_of(now, record.parts);
  args.running = scheme_.spec().partial_details ? static_cast<int>(sums()) : 1;
  for (int s = 0; s < args.running; ++s) {
    kernels::RunningSourceGrad& source = args.sources[s];
    source.form = now.form[static_cast<size_t>(s)];
    source.bias = bias_of(*group.routers[static_cast<size_t>(position)], s);
    source.dot = kept(group, position, s, 0);
    source.ratio = kept(group, position, s, 1);
    source.inverse = kept(group, position, s, 2);
  }
  const int last = slot(block, position - 1);
  for (int s = 0; s < static_cast<int>(sums()); ++s) {
    const int form = now.form[static_cast<size_t>(s)];
    kernels::FormGrad& own = args.forms[form];
    float* const grad = row(grad_, first_row(block) + s);
    if (owner(now, form) == s) {
      own.grad = grad;
      own.sign = form > 0 && (last >> (s - 1) & 1) != 0 ? -1.0F : 1.0F;
    } else if (owner(later, later.form[static_cast<size_t>(s)]) == s) {
      if (own.joined == nullptr) {
        own.joined = grad;
      } else {
        grad_[first_row(block) + owner(now, form)].add_(grad_[first_row(block) + s]);
      }
    }
  }
}

// The finished sources' part in all readers of a block.
void FusedRoutedStream::mix_backward(int64_t block) {
  const Group group = std::move(groups_.at(block));
  groups_.erase(block);
  const int64_t skipped = block == 0 ? 1 : 0;  // the first sublayer has no router
  const int64_t routers = static_cast<int64_t>(group.routers.size()) - skipped;
  const auto sources = static_cast<int64_t>(group.rows.size());
  std::vector<float*> grads;
  for (int64_t j = 0; j < sources; ++j) grads.push_back(row(grad_, j));
  // The read-out comes first in the backward, and reads every row.
  const auto first = std::make_unique<bool[]>(grads.size());
  std::fill_n(first.get(), grads.size(), block == blocks().count);
  const int64_t chunks = ops::chunk_count(tokens_);
  const ops::PartialSums query_grad(arena_, chunks, routers * d_);
  const ops::PartialSums bias_grad(arena_, chunks, routers * sources);
  ops::with_type(group.dh.scalar_type(), [&]<typename C>() {
    kernels::MixFinishedBackward<float, C> args;
    set_sources(args, group, skipped, routers);
    args.logits = row(group.logits, skipped * sources);
    args.pitch = group.dh.stride(0);
    args.lse = row(group.lse, skipped);
    args.along = row(group.along, skipped);
    args.dh = row<C>(group.dh, skipped);
    args.grads = grads.data();
    args.first = first.get();
    const auto kernel = kernels::chosen_kernels().finished->fp32.mix.of<C>().backward;
    ops::for_chunks(tokens_, [&](int64_t chunk, int64_t begin, int64_t end) {
      kernels::MixFinishedBackward<float, C> own = args;
      own.query_grad = query_grad.of(chunk);
      own.bias_grad = bias_grad.of(chunk);
      kernel(own, begin, end);
    });
  });
  const std::vector<float> t = query_grad.total(), bias = bias_grad.total();
  for (int64_t r = 0; r < routers; ++r) {
    const Router& router = *group.routers[static_cast<size_t>(r + skipped)];
    add_query_grad(router, t.data() + r * d_);
    for (int64_t j = 0; j < sources; ++j) {
      const int64_t sum = group.sums[static_cast<size_t>(j)];
      if (sum == 0) continue;
      out<float>(router.bias->value.grad())[sum - 1] += bias[static_cast<size_t>(r * sources + j)];
    }
  }
}

void FusedRoutedStream::read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                                 double) {
  grad_ = arena_.empty_apart(bank_.size(0), {tokens_, d_});
  merge_backward(blocks().count, 0, norm, grad);
}
void FusedRoutedStream::read_normed_backward(const Site& site, const PreNorm& norm,
                                             const at::Tensor& grad) {
  merge_backward(blocks().block_of(site.index()), blocks().position_of(site.index()), norm, grad);
}

at::Tensor FusedRoutedStream::begin_backward() { return grad_[0].view(shape_); }

}  // namespace wavroute
