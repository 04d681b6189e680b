// ReZero (arXiv 2003.04887): h_{l+1} = h_l + a_l u_l, a_l a scalar that starts at 0.
#include "residual/additive.h"
#include "residual/options.h"
#include "residual/schemes.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {{"norm",
           OptionType::kString,
           std::string("pre"),
           "pre: a norm before every sublayer; none: the original, without",
           false,
           {"pre", "none"}}};
}

class Rezero final : public SublayerScaledResidual {
 public:
  Rezero(Options options, const ModelSize& size)
      : SublayerScaledResidual(std::move(options), size, /*scale_size=*/1, /*init=*/0.0) {}

  [[nodiscard]] bool has_sublayer_norms() const override {
    return get<std::string>(given(), "norm") == "pre";
  }
};

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  return std::make_unique<Rezero>(with_defaults(given, specs(), "rezero"), size);
}

}  // namespace

SchemeInfo rezero() {
  return {"rezero", "ReZero: a scalar per sublayer, from 0 (arXiv 2003.04887)", specs(), create};
}

}  // namespace wavroute::schemes
