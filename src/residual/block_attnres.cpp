// Block Attention Residuals (arXiv 2603.15031): a softmax over the sums of finished blocks and the
// running sum of the unfinished one.
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
           std::vector<std::string>{},
           "detail bases: none in this scheme",
           false,
           {}}};
}

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double eps) {
  const Options options = with_defaults(given, specs(), "block_attnres");
  if (!get<std::vector<std::string>>(options, "details").empty()) {
    throw expected("no residual.details of block_attnres", "some", {},
                   "scheme = \"wav\" or \"haares\" has details");
  }
  return make_routed(given, specs(), "block_attnres", size, eps, {});
}

}  // namespace

SchemeInfo block_attnres() {
  return {"block_attnres", "Block Attention Residuals (arXiv 2603.15031)", specs(), create};
}

}  // namespace wavroute::schemes
