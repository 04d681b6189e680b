#include "residual/additive.h"

#include <fmt/format.h>

#include "residual/additive_stream.h"

namespace wavroute {
std::unique_ptr<Stream> AdditiveResidual::open(const StreamOptions& options) const {
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
