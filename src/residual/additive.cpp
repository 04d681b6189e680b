#include "residual/additive.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

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

PlainStart SublayerScaledResidual::start_from_plain() {
  const at::NoGradGuard no_grad;
  for (Parameter* scale : scales_) scale->value.fill_(1.0);
  return {};
}

}  // namespace wavroute
