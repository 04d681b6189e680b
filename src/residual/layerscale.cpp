// LayerScale (CaiT, arXiv 2103.17239): h_{l+1} = h_l + lambda_l * u_l, lambda_l in R^d.
#include "residual/additive.h"
#include "residual/options.h"
#include "residual/schemes.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {{"init",
           OptionType::kFloat,
           std::string("auto"),
           "initial scale; auto: 0.1 to 18 layers, 1e-5 to 24, else 1e-6 (CaiT)",
           true,
           {}}};
}

double default_init(int64_t layers) {
  if (layers <= 18) return 0.1;
  return layers <= 24 ? 1e-5 : 1e-6;
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  Options options = with_defaults(given, specs(), "layerscale");
  if (is_auto(options, "init")) options["init"] = default_init(size.layers);
  const double init = get<double>(options, "init");
  return std::make_unique<SublayerScaledResidual>(std::move(options), size, size.width, init);
}

}  // namespace

SchemeInfo layerscale() {
  return {"layerscale", "LayerScale: a vector per sublayer (CaiT, arXiv 2103.17239)", specs(),
          create};
}

}  // namespace wavroute::schemes
