#include "residual/fold.h"

#include "residual/additive.h"

namespace wavroute {

std::optional<std::vector<UpdateScale>> update_scales(const Residual& residual, int64_t layers) {
  const auto* additive = dynamic_cast<const AdditiveResidual*>(&residual);
  if (additive == nullptr || !additive->is_its_terms() || !residual.has_sublayer_norms())
    return std::nullopt;
  std::vector<UpdateScale> scales;
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
      const AdditiveTerm term = additive->term({layer, kind, layer}, Pass{});
      if (term.coefficient != 1.0) return std::nullopt;
      const bool has_scale = term.scale != nullptr;
      scales.push_back({has_scale ? term.scale->slices.front().name : std::string(), term.row});
    }
  }
  return scales;
}

}  // namespace wavroute
