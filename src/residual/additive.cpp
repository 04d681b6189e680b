#include "residual/additive.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace wavroute {

void SublayerScaledResidual::declare(ParameterTable& table) {
  for (int64_t i = 0; i < size().sublayers(); ++i) {
    scales_.push_back(&table.declare(
        fmt::format("model.layers.{}.{}_residual_scale", i / 2, i % 2 == 0 ? "self_attn" : "mlp"),
        {scale_size_}, Decay::kNo, {init_}));
  }
}

std::unique_ptr<Stream> SublayerScaledResidual::open(const StreamOptions& options) const {
  return std::make_unique<ScaledStream>(options, [this](const Site& site) {
    return scales_[static_cast<size_t>(site.index())]->value;
  });
}

ComposedStream::State ScaledStream::next(const Site& site, const State& state,
                                         const at::Tensor& update, bool) const {
  return {at::addcmul(state[0], update.to(state[0].scalar_type()), scale_(site))};
}

}  // namespace wavroute
