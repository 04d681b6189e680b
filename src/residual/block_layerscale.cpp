// Block LayerScale: h_{l+1} = h_l + mu_n * u_l, one mu_n in R^d per block of sublayers. Only the
// name is published; the definition is ours.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "residual/additive.h"
#include "residual/options.h"
#include "residual/schemes.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {blocks_option(), {"init", OptionType::kFloat, 1.0, "initial scale [ours]", false, {}}};
}

class BlockLayerScale final : public AdditiveResidual {
 public:
  BlockLayerScale(Options options, const ModelSize& size, const Blocks& blocks)
      : AdditiveResidual(std::move(options), size), blocks_(blocks) {}

  void declare(ParameterTable& table) override {
    scale_ = &table.declare("model.block_residual_scale", {blocks_.count, size().width}, Decay::kNo,
                            {get<double>(given(), "init")});
  }
  [[nodiscard]] AdditiveTerm term(const Site& site, const Pass&) const override {
    return {1.0, scale_, blocks_.block_of(site.index())};
  }
  [[nodiscard]] PlainStart start_from_plain() override {
    const at::NoGradGuard no_grad;
    scale_->value.fill_(1.0);
    return {};
  }
  [[nodiscard]] int64_t block_length() const override { return blocks_.length; }
  [[nodiscard]] double kept_states() const override {
    return static_cast<double>(size().sublayers());
  }

 private:
  Blocks blocks_;
  Parameter* scale_ = nullptr;  // mu [N, d]
};

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  Options options = with_defaults(given, specs(), "block_layerscale");
  const Blocks blocks = resolve_blocks(options.at("blocks"), size, /*even_length=*/false);
  options["blocks"] = blocks.count;
  return std::make_unique<BlockLayerScale>(std::move(options), size, blocks);
}

}  // namespace

SchemeInfo block_layerscale() {
  return {"block_layerscale", "a vector per block of sublayers, from 1 [ours]", specs(), create};
}

}  // namespace wavroute::schemes
