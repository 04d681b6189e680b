// Which schemes fold into a Llama, and by which of their tensors.
#include "residual/fold.h"

#include <gtest/gtest.h>

#include <set>

namespace wavroute {
namespace {

std::optional<std::vector<UpdateScale>> scales_of(const std::string& scheme,
                                                  const Options& options = {}) {
  const auto residual = find_scheme(scheme).create(options, {4, 16}, 1e-6);
  ParameterTable table;
  residual->declare(table);
  return update_scales(*residual, 4);
}

TEST(Fold, SchemesOfTermsAloneAreLlamas) {
  std::set<std::string> folding;
  for (const SchemeInfo& scheme : residual_schemes()) {
    if (scales_of(scheme.name)) folding.insert(scheme.name);
  }
  EXPECT_EQ(folding, (std::set<std::string>{"prenorm", "layerdrop", "rezero", "layerscale",
                                            "block_layerscale"}));
  EXPECT_FALSE(scales_of("rezero", {{"norm", std::string("none")}}));
}

TEST(Fold, NamesTheTensorOfEverySublayer) {
  const auto rezero = scales_of("rezero");
  ASSERT_EQ(rezero->size(), 8U);
  EXPECT_EQ((*rezero)[3].tensor, "model.layers.1.mlp_residual_scale");
  const auto blocks = scales_of("block_layerscale", {{"blocks", int64_t{2}}});
  EXPECT_EQ((*blocks)[3].row, 0);
  EXPECT_EQ((*blocks)[4].row, 1);
  EXPECT_EQ((*blocks)[4].tensor, "model.block_residual_scale");
  EXPECT_EQ((*scales_of("prenorm"))[0].tensor, "");
}

}  // namespace
}  // namespace wavroute
