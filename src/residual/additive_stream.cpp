#include "residual/additive_stream.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "residual/coefficients.h"
#include "residual/prenorm_op.h"

namespace wavroute {

void AdditiveStream::begin(const at::Tensor& embedding) { h_ = embedding.contiguous(); }

// h including the pending write, and its norm.
at::Tensor AdditiveStream::take(const PreNorm& norm) {
  const at::NoGradGuard no_grad;
  Record record{backend().add_norm(h_, pending_, norm_of(norm), norm.type), pending_};
  pending_ = {};
  h_ = record.normed.h;
  at::Tensor x = record.normed.x;
  record.normed.x.reset();
  if (record_) {
    if (!record.addend.scale.defined()) {
      // Without a scale only its presence matters.
      if (record.addend.u.defined()) record.addend.u = at::empty({0}, record.addend.u.options());
    }
    records_.push_back(std::move(record));
  }
  return x;
}

at::Tensor AdditiveStream::read_normed(const Site&, const PreNorm& norm) { return take(norm); }
at::Tensor AdditiveStream::read_out_normed(const PreNorm& norm) { return take(norm); }

void AdditiveStream::write(const Site& site, const at::Tensor& update) {
  const AdditiveTerm term = scheme_.term(site, options_.pass);
  pending_.u = update.contiguous();
  pending_.coefficient = term.coefficient;
  if (term.scale == nullptr) return;
  const auto part = [&](const at::Tensor& all) { return term.row < 0 ? all : all[term.row]; };
  const at::Tensor scale = part(term.scale->value.detach());
  pending_.scale = coefficients_of(options_, {.channels = scale.numel() > 1},
                                   [&] { return std::vector<at::Tensor>{scale}; })[0];
  pending_.scale_grad = part(term.scale->value.grad());
}

void AdditiveStream::give_back(const PreNorm& norm, const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  const Record record = std::move(records_.back());
  records_.pop_back();
  const bool first = !grad_.defined();
  if (first) grad_ = backend().memory().empty_like(record.normed.h);
  next_du_ =
      backend().add_norm_backward(grad, record.normed, norm_of(norm), record.addend, grad_, first);
}

void AdditiveStream::read_normed_backward(const Site&, const PreNorm& norm,
                                          const at::Tensor& grad) {
  give_back(norm, grad);
}
void AdditiveStream::read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad, double) {
  give_back(norm, grad);
}

at::Tensor AdditiveStream::write_backward(const Site&) {
  if (!next_du_.defined()) {
    // Recomputation: the read that followed this write belongs to another segment of the pass.
    const at::NoGradGuard no_grad;
    next_du_ = backend().add_norm_backward({}, {}, {}, pending_, grad_, /*first=*/false);
  }
  pending_ = {};
  return std::move(next_du_);
}

StreamSnapshot AdditiveStream::snapshot() {
  const at::NoGradGuard no_grad;
  return {backend().add(h_, pending_)};
}

void AdditiveStream::restore(const StreamSnapshot& snapshot) {
  h_ = snapshot[0];
  pending_ = {};
  records_.clear();
}

}  // namespace wavroute
