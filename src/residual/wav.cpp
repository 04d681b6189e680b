// WAV v1 (arXiv 2606.06564v1): block sums, and two zero-sum details of each: phase and split.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "residual/options.h"
#include "residual/routed.h"
#include "residual/schemes.h"
#include "wavroute/error.h"

namespace wavroute::schemes {
namespace {

std::vector<OptionSpec> specs() {
  return {blocks_option(),
          {"details",
           OptionType::kStringList,
           std::vector<std::string>{"phase", "split"},
           "detail bases of a block: a subset of phase, split",
           false,
           {}},
          partial_details_option(),
          beta_option(),
          matching_epsilon_option()};
}

// The bases in the order of the biases, phase before split, however the option lists them.
std::vector<DetailBasis> chosen_details(const std::vector<std::string>& names) {
  std::vector<DetailBasis> details;
  for (const DetailBasis& basis : {phase_basis(), split_basis()}) {
    if (std::ranges::count(names, basis.type) > 0) details.push_back(basis);
  }
  if (details.size() != names.size()) {
    throw expected("a subset of [phase, split]", fmt::format("[{}]", fmt::join(names, ", ")),
                   "as residual.details");
  }
  return details;
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double eps) {
  const Options options = with_defaults(given, specs(), "wav");
  return make_routed(given, specs(), "wav", size, eps,
                     chosen_details(get<std::vector<std::string>>(options, "details")));
}

}  // namespace

SchemeInfo wav() {
  return {"wav", "WAV v1: block sums with phase and split details (arXiv 2606.06564v1)", specs(),
          create};
}

}  // namespace wavroute::schemes
