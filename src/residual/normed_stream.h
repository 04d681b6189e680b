// What streams share whose read and the norm after it are one pass: a read is a read with an empty
// norm.
#pragma once

#include "wavroute/residual.h"

namespace wavroute {

class NormedStream : public Stream {
 public:
  using Stream::Stream;

  [[nodiscard]] at::Tensor read(const Site& site) final { return read_normed(site, {}); }
  [[nodiscard]] at::Tensor read_out() final { return read_out_normed({}); }
  void read_backward(const Site& site, const at::Tensor& grad) final {
    read_normed_backward(site, {}, grad);
  }
  void read_out_backward(const at::Tensor& grad, double auxiliary_grad) final {
    read_out_normed_backward({}, grad, auxiliary_grad);
  }

  [[nodiscard]] at::Tensor read_normed(const Site& site, const PreNorm& norm) override = 0;
  [[nodiscard]] at::Tensor read_out_normed(const PreNorm& norm) override = 0;
  void read_normed_backward(const Site& site, const PreNorm& norm,
                            const at::Tensor& grad) override = 0;
  void read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                double auxiliary_grad) override = 0;
};

}  // namespace wavroute
