// The norm after a read, for streams that don't fuse the two.
#include "ops/backend.h"
#include "residual/prenorm_op.h"
#include "wavroute/residual.h"

namespace wavroute {

struct Stream::Norms {
  std::vector<ops::Normed> recorded;  // without their x
};

Stream::Stream(const StreamOptions& options)
    : options_(options), record_(options.record), norms_(std::make_unique<Norms>()) {}

Stream::~Stream() = default;

at::Tensor Stream::normed(const at::Tensor& h, const PreNorm& norm) {
  ops::Normed normed = backend().add_norm(h, {}, norm_of(norm), norm.type);
  at::Tensor x = std::move(normed.x);
  if (record_) norms_->recorded.push_back(std::move(normed));
  return x;
}

at::Tensor Stream::normed_backward(const PreNorm& norm, const at::Tensor& grad) {
  const ops::Normed normed = std::move(norms_->recorded.back());
  norms_->recorded.pop_back();
  at::Tensor dh = backend().memory().empty_like(normed.h);
  (void)backend().add_norm_backward(grad, normed, norm_of(norm), {}, dh, /*first=*/true);
  return dh;
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
