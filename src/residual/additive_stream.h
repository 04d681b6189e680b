// The stream of the additive schemes: a write waits for the read after it, and both, with the norm,
// are one operator of the back end, forward and backward.
#pragma once

#include <vector>

#include "ops/backend.h"
#include "residual/additive.h"
#include "residual/normed_stream.h"

namespace wavroute {

class AdditiveStream final : public NormedStream {
 public:
  AdditiveStream(const AdditiveResidual& scheme, const StreamOptions& options)
      : NormedStream(options), scheme_(scheme) {}

  void begin(const at::Tensor& embedding) override;
  void write(const Site& site, const at::Tensor& update) override;
  [[nodiscard]] at::Tensor read_normed(const Site& site, const PreNorm& norm) override;
  [[nodiscard]] at::Tensor read_out_normed(const PreNorm& norm) override;

  [[nodiscard]] at::Tensor write_backward(const Site& site) override;
  [[nodiscard]] at::Tensor begin_backward() override { return grad_; }
  void read_normed_backward(const Site& site, const PreNorm& norm, const at::Tensor& grad) override;
  void read_out_normed_backward(const PreNorm& norm, const at::Tensor& grad,
                                double auxiliary_grad) override;

  [[nodiscard]] StreamSnapshot snapshot() override;
  void restore(const StreamSnapshot& snapshot) override;

 protected:
  [[nodiscard]] at::ScalarType storage() const override { return h_.scalar_type(); }

 private:
  // A recorded read: the norm, and what had been written before it.
  struct Record {
    ops::Normed normed;
    ops::Addend addend;
  };

  [[nodiscard]] at::Tensor take(const PreNorm& norm);
  void give_back(const PreNorm& norm, const at::Tensor& grad);

  const AdditiveResidual& scheme_;
  at::Tensor h_;         // [B,T,d], without `pending_`
  ops::Addend pending_;  // the last write
  std::vector<Record> records_;
  at::Tensor grad_;     // of h, in the backward
  at::Tensor next_du_;  // for the next call of write_backward
};

}  // namespace wavroute
