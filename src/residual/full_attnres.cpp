// Full Attention Residuals (arXiv 2603.15031): a softmax over the embedding and every single
// update: blocks of one sublayer.
#include "residual/options.h"
#include "residual/routed.h"
#include "residual/schemes.h"

namespace wavroute::schemes {
namespace {

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double eps) {
  RoutedSpec spec;
  spec.blocks = {size.sublayers(), 1, size.sublayers()};
  spec.summary_symbol = "u";
  spec.norm_eps = eps;
  spec.takes_programs = false;
  return std::make_unique<RoutedResidual>(std::move(spec), with_defaults(given, {}, "full_attnres"),
                                          size);
}

}  // namespace

SchemeInfo full_attnres() {
  return {"full_attnres", "Full Attention Residuals (arXiv 2603.15031)", {}, create};
}

}  // namespace wavroute::schemes
