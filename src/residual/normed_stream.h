// What streams share whose read and the norm after it are one pass: a read is a read with an empty
// norm.
#pragma once

#include "wavroute/residual.h"

namespace wavroute {

class NormedStream : public Stream {
 public:
  using Stream::Stream;

  [[nodiscard]] at::Tensor read(const Site& site) final { return read_normed(site, no_norm()); }
  [[nodiscard]] at::Tensor read_out() final { return read_out_normed(no_norm()); }
  void read_backward(const Site& site, const at::Tensor& grad) final {
    read_normed_backward(site, no_norm(), grad);
  }
  void read_out_backward(const at::Tensor& grad, double auxiliary_grad) final {
    read_out_normed_backward(no_norm(), grad, auxiliary_grad);
  }

  [[nodiscard]] at::Tensor read_normed(const Site& site, const PreNorm& norm) override = 0;
  [[nodiscard]] at::Tensor read_out_normed(const PreNorm& norm) override = 0;
  void read_normed_backward(const Site& site, const PreNorm& norm,
                            const at::Tensor& grad) override = 0;
  void read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                double auxiliary_grad) override = 0;

 protected:
  [[nodiscard]] virtual at::ScalarType storage() const = 0;

 private:
  [[nodiscard]] PreNorm no_norm() const { return {nullptr, 0.0, storage()}; }
};

}  // namespace wavroute
