// What the additive schemes share: h_{l+1} = h_l + c_l s_l * u_l (method.md section 2), c_l a
// constant, s_l a parameter.
#pragma once

#include <memory>
#include <vector>

#include "residual/composed.h"
#include "residual/configured.h"

namespace wavroute {

// How an update enters the stream.
struct AdditiveTerm {
  double coefficient = 1.0;
  Parameter* scale = nullptr;  // null: 1
  int64_t row = -1;            // of `scale` [N, d]; -1: `scale` is [1] or [d] itself
};

class AdditiveResidual : public ConfiguredResidual {
 public:
  using ConfiguredResidual::ConfiguredResidual;

  void declare(ParameterTable&) override {}
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;

  [[nodiscard]] virtual AdditiveTerm term(const Site&, const Pass&) const { return {}; }
  // False: the scheme does more than its terms say, and no scale of an output stands for it.
  [[nodiscard]] virtual bool is_its_terms() const { return true; }
};

// A scale of `scale_size` numbers (1 or the width) per sublayer, with initial value `init`.
class SublayerScaledResidual : public AdditiveResidual {
 public:
  SublayerScaledResidual(Options options, const ModelSize& size, int64_t scale_size, double init)
      : AdditiveResidual(std::move(options), size), scale_size_(scale_size), init_(init) {}

  void declare(ParameterTable& table) override;
  [[nodiscard]] AdditiveTerm term(const Site& site, const Pass&) const override {
    return {1.0, scales_[static_cast<size_t>(site.index())]};
  }
  [[nodiscard]] double kept_states() const override {
    return static_cast<double>(size().sublayers());
  }
  [[nodiscard]] PlainStart start_from_plain() override;  // every scale 1

 private:
  int64_t scale_size_;
  double init_;
  std::vector<Parameter*> scales_;  // by Site::index()
};

}  // namespace wavroute
