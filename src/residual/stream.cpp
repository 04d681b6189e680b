// The norm of streams that have no pass of their own for a read and its norm.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/norm.h"
#include "ops/zero_rows.h"
#include "residual/prenorm_op.h"
#include "wavroute/residual.h"

namespace wavroute {

// On our kernels `kernel` is set, else the graph from `leaf` to `x`.
struct Stream::Norm {
  ops::Normed kernel;
  at::Tensor leaf, x;
};

Stream::Stream(const StreamOptions& options) : options_(options), record_(options.record) {}

Stream::~Stream() = default;

at::Tensor Stream::normed(const at::Tensor& h, const PreNorm& norm) {
  Norm record;
  if (options_.arena != nullptr) {
    record.kernel = ops::add_norm(*options_.arena, h.contiguous(), {}, norm_of(norm), norm.type);
    at::Tensor x = record.kernel.x;
    record.kernel.x.reset();
    if (record_) norms_.push_back(std::move(record));
    return x;
  }
  const at::AutoGradMode graph(record_);
  record.leaf = h.detach();
  if (record_) record.leaf.set_requires_grad(true);
  record.x = record.leaf;
  if (norm.gain != nullptr) {
    record.x = ops::rms_norm(record.x, norm.gain->value, norm.eps);
  }
  record.x = record.x.to(norm.type);
  at::Tensor x = record.x.detach();
  if (record_) norms_.push_back(std::move(record));
  return x;
}

at::Tensor Stream::normed_backward(const PreNorm& norm, const at::Tensor& grad) {
  const Norm record = std::move(norms_.back());
  norms_.pop_back();
  if (options_.arena != nullptr) {
    at::Tensor dh = options_.arena->empty_like(record.kernel.h);
    (void)ops::add_norm_backward(*options_.arena, grad, record.kernel, norm_of(norm), {}, dh,
                                 /*first=*/true);
    return dh;
  }
  torch::autograd::backward({record.x}, {grad.to(record.x.scalar_type())});
  return record.leaf.grad();
}

at::Tensor Stream::read_normed(const Site& site, const PreNorm& norm) {
  return normed(read(site), norm);
}

at::Tensor Stream::read_out_normed(const PreNorm& norm) { return normed(read_out(), norm); }

void Stream::read_normed_backward(const Site& site, const PreNorm& norm, const at::Tensor& grad) {
  read_backward(site, normed_backward(norm, grad));
}

void Stream::read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                      double auxiliary_grad) {
  read_out_backward(normed_backward(norm, grad), auxiliary_grad);
}

}  // namespace wavroute
