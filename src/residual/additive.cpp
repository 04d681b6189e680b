#include "residual/additive.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "residual/fused_additive.h"

namespace wavroute {
namespace {

// Of stock operators; autograd gives the twins where a scale needs a gradient.
class AdditiveStream final : public ComposedStream {
 public:
  AdditiveStream(const AdditiveResidual& scheme, const StreamOptions& options)
      : ComposedStream(options), scheme_(scheme) {}

  void write(const Site& site, const at::Tensor& update) override {
    if (term(site).scale != nullptr) return ComposedStream::write(site, update);
    const at::NoGradGuard no_grad;
    update_type_ = update.scalar_type();
    state_ = next(site, state_, update, /*live=*/true);
  }

  [[nodiscard]] at::Tensor write_backward(const Site& site) override {
    const AdditiveTerm added = term(site);
    if (added.scale != nullptr) return ComposedStream::write_backward(site);
    const at::NoGradGuard no_grad;
    const at::Tensor grad = added.coefficient == 1.0 ? grad_[0] : grad_[0] * added.coefficient;
    return grad.to(update_type_);
  }

 protected:
  [[nodiscard]] State next(const Site& site, const State& state, const at::Tensor& update,
                           bool) const override {
    const AdditiveTerm added = term(site);
    if (added.scale == nullptr) return {at::add(state[0], update, added.coefficient)};
    const at::Tensor& all = added.scale->value;
    const at::Tensor scale = added.row < 0 ? all : all[added.row];
    return {at::addcmul(state[0], update.to(state[0].scalar_type()), scale, added.coefficient)};
  }

 private:
  [[nodiscard]] AdditiveTerm term(const Site& site) const {
    return scheme_.term(site, options().pass);
  }

  const AdditiveResidual& scheme_;
  at::ScalarType update_type_ = at::kFloat;
};

}  // namespace

std::unique_ptr<Stream> AdditiveResidual::open(const StreamOptions& options) const {
  if (options.arena != nullptr) return std::make_unique<FusedAdditiveStream>(*this, options);
  return std::make_unique<AdditiveStream>(*this, options);
}

void SublayerScaledResidual::declare(ParameterTable& table) {
  for (int64_t i = 0; i < size().sublayers(); ++i) {
    scales_.push_back(&table.declare(
        fmt::format("model.layers.{}.{}_residual_scale", i / 2, i % 2 == 0 ? "self_attn" : "mlp"),
        {scale_size_}, Decay::kNo, {init_}));
  }
}

}  // namespace wavroute
