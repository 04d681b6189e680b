// What the additive schemes share: h_{l+1} = h_l + (something of u_l) (method.md section 2).
#pragma once

#include <functional>
#include "residual/blocks.h"
#include "residual/composed.h"

namespace wavroute {

class AdditiveResidual : public Residual {
 public:
  AdditiveResidual(Options options, const ModelSize& size)
      : options_(std::move(options)), size_(size) {}

  void declare(ParameterTable&) override {}
  [[nodiscard]] int64_t block_length() const override { return default_blocks(size_).length; }
  [[nodiscard]] Options options(const Progress&) const override { return options_; }

 protected:
  [[nodiscard]] const ModelSize& size() const { return size_; }
  [[nodiscard]] const Options& given() const { return options_; }

 private:
  Options options_;
  ModelSize size_;
};

// A scale of `scale_size` numbers (1 or the width) per sublayer, `init` at first.
class SublayerScaledResidual : public AdditiveResidual {
 public:
  SublayerScaledResidual(Options options, const ModelSize& size, int64_t scale_size, double init)
      : AdditiveResidual(std::move(options), size), scale_size_(scale_size), init_(init) {}

  void declare(ParameterTable& table) override;
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;
  [[nodiscard]] double kept_states() const override {
    return static_cast<double>(size().sublayers());
  }

 private:
  int64_t scale_size_;
  double init_;
  std::vector<Parameter*> scales_;  // by Site::index()
};

// h + scale * u, the scale a parameter that broadcasts over tokens.
class ScaledStream final : public ComposedStream {
 public:
  using Scale = std::function<at::Tensor(const Site&)>;

  ScaledStream(const StreamOptions& options, Scale scale)
      : ComposedStream(options), scale_(std::move(scale)) {}

 protected:
  [[nodiscard]] State next(const Site& site, const State& state, const at::Tensor& update,
                           bool live) const override;

 private:
  Scale scale_;
};

}  // namespace wavroute
