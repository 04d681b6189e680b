// HAARES, also WAV v2 (arXiv 2606.06564v2): block sums, and one zero-sum detail of each: split.
#include "residual/options.h"
#include "residual/routed.h"
#include "residual/schemes.h"
#include "wavroute/error.h"

namespace wavroute::schemes {
namespace {

const std::vector<std::string> kDetails = {"split"};

std::vector<OptionSpec> specs() {
  return {
      blocks_option(),
      {"details", OptionType::kStringList, kDetails, "detail bases: split, no other", false, {}},
      partial_details_option(),
      beta_option(),
      matching_epsilon_option()};
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double eps) {
  const Options options = with_defaults(given, specs(), "haares");
  if (get<std::vector<std::string>>(options, "details") != kDetails) {
    throw expected("[\"split\"] as residual.details of haares", "others", {},
                   "scheme = \"wav\" takes any subset of phase and split");
  }
  return make_routed(given, specs(), "haares", size, eps, {split_basis()});
}

}  // namespace

SchemeInfo haares() {
  return {"haares", "HAARES / WAV v2: block sums with a split detail (arXiv 2606.06564v2)", specs(),
          create};
}

}  // namespace wavroute::schemes
