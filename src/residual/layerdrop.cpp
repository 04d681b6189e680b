// LayerDrop (arXiv 1909.11556): in training each layer is left out with probability p, one
// independent draw per layer and batch; evaluation runs all layers.
#include <fmt/format.h>

#include "base/philox.h"
#include "residual/additive.h"
#include "residual/options.h"
#include "residual/schemes.h"
#include "wavroute/error.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {{"p", OptionType::kFloat, 0.2, "probability that a layer is left out", false, {}},
          {"schedule",
           OptionType::kString,
           std::string("uniform"),
           "uniform: p for every layer; linear: p i / L for layer i from 1",
           false,
           {"uniform", "linear"}},
          {"rescale",
           OptionType::kBool,
           false,
           "divide the updates of a kept layer by 1 - p in training (stochastic depth)",
           false,
           {}}};
}

class LayerDrop final : public AdditiveResidual {
 public:
  using AdditiveResidual::AdditiveResidual;

  [[nodiscard]] AdditiveTerm term(const Site& site, const Pass& pass) const override {
    if (!pass.training || !get<bool>(given(), "rescale")) return {};
    return {1.0 / (1.0 - probability(site.layer))};
  }
  [[nodiscard]] bool runs_layer(int64_t layer, const Pass& pass) const override {
    if (!pass.training) return true;
    const Philox draws(pass.seed, "layerdrop");
    return draws.uniform(static_cast<uint64_t>(layer), static_cast<uint64_t>(pass.progress.step)) >=
           probability(layer);
  }
  [[nodiscard]] bool is_llama() const override { return true; }

 private:
  [[nodiscard]] double probability(int64_t layer) const {
    const double p = get<double>(given(), "p");
    if (get<std::string>(given(), "schedule") == "uniform") return p;
    return p * static_cast<double>(layer + 1) / static_cast<double>(size().layers);
  }
};

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  Options options = with_defaults(given, specs(), "layerdrop");
  const double p = get<double>(options, "p");
  if (!(p >= 0.0 && p < 1.0)) {
    throw expected("a number of at least 0 and below 1", p, "as residual.p");
  }
  return std::make_unique<LayerDrop>(std::move(options), size);
}

}  // namespace

SchemeInfo layerdrop() {
  return {"layerdrop", "LayerDrop: whole layers left out at random (arXiv 1909.11556)", specs(),
          create};
}

}  // namespace wavroute::schemes
