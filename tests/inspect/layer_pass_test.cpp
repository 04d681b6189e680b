#include "inspect/layer_pass.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "inspect/layer_sizes.h"
#include "tests/model/small_model.h"

namespace wavroute::testing {
namespace {

class PassOfEveryScheme : public ::testing::TestWithParam<SchemeCase> {};

// The same weights get the same gradients as in training, which walks the stream with norms fused.
TEST_P(PassOfEveryScheme, GradientsAreThoseOfATrainingPass) {
  const auto model = scattered_model(small_spec(GetParam()));
  const at::Tensor ids = random_tokens(2, 9), targets = random_tokens(2, 9, "targets");
  model->parameters().zero_grad();
  PassOptions options;
  options.auxiliary_weight = 0.0;
  (void)training_pass(*model, ids, targets, options);
  const NamedTensors expected = gradients_of(*model);
  model->parameters().zero_grad();
  const LayerPass pass = run_layers(*model, ids, {.targets = targets});
  for (const auto& [name, gradient] : gradients_of(*model)) {
    if (!name.starts_with("model.layers.")) continue;  // those of the ends are not needed
    EXPECT_LE(difference(gradient, expected.at(name)), 1e-11) << name;
  }
  ASSERT_EQ(pass.gradients.size(), pass.updates.size());
}

TEST_P(PassOfEveryScheme, TheReadOutGivesTheLossOfTheModel) {
  const auto model = scattered_model(small_spec(GetParam()));
  const at::Tensor ids = random_tokens(2, 9), targets = random_tokens(2, 9, "targets");
  const LayerPass pass = run_layers(*model, ids, {});
  const at::Tensor expected = at::cross_entropy_loss(logits_of(*model, ids).flatten(0, 1),
                                                     targets.flatten(), {}, at::Reduction::None)
                                  .view({2, 9});
  EXPECT_LE(difference(losses_after(*model, pass.reads.back(), targets), expected), 1e-11);
  EXPECT_TRUE(pass.gradients.empty());
}

INSTANTIATE_TEST_SUITE_P(Schemes, PassOfEveryScheme, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& param) { return param.param.label; });

// d loss / d u_M of prenorm is d loss / d h, which a small change of the last update shows.
TEST(LayerPass, TheGradientOfTheLastUpdateIsTheSlopeOfTheLoss) {
  const auto model = scattered_model(small_spec("prenorm"));
  const at::Tensor ids = random_tokens(1, 9), targets = random_tokens(1, 9, "targets");
  const LayerPass pass = run_layers(*model, ids, {.targets = targets});
  const at::Tensor& out = pass.reads.back();
  const double step = 1e-6;
  for (const int64_t channel : {0, 7}) {
    const at::Tensor moved = out.clone();
    moved.select(-1, channel).add_(step);
    const at::Tensor slope =
        (losses_after(*model, moved, targets) - losses_after(*model, out, targets)) / step;
    EXPECT_LE(difference(slope, pass.gradients.back().select(-1, channel)), 1e-4);
  }
}

TEST(LayerPass, NamesSayWhichExecutionOfALayer) {
  const auto model = fresh_model(small_spec("prenorm"));
  const LayerProgram program = LayerProgram::parse("0,2x2", 4);
  const std::vector<std::string> expected = {"attention 0", "mlp 0",           "attention 2",
                                             "mlp 2",       "attention 2 (2)", "mlp 2 (2)"};
  EXPECT_EQ(names_of(sites_of(*model, &program)), expected);
}

TEST(LayerSizes, AreThoseOfThePass) {
  const auto model = scattered_model(small_spec("wav"));
  const at::Tensor ids = random_tokens(2, 9);
  const LayerPass pass = run_layers(*model, ids, {});
  const auto sizes = layer_sizes(*model, ids, {});
  ASSERT_EQ(sizes.at("stream").size(), 9U);
  ASSERT_EQ(sizes.at("update").size(), 8U);
  const auto rms = [](const at::Tensor& rows) {
    return rows.square().mean(-1).sqrt().mean().item<double>();
  };
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_NEAR(sizes["stream"][i].get<double>(), rms(pass.reads[i]), 1e-12);
  }
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(sizes["update"][i].get<double>(), rms(pass.updates[i]), 1e-12);
  }
  // The first sublayer has no router.
  EXPECT_TRUE(sizes.at("entropy")[0].is_null());
  EXPECT_GT(sizes.at("entropy")[8].get<double>(), 0.0);
  EXPECT_FALSE(layer_sizes(*fresh_model(small_spec("prenorm")), ids, {}).contains("entropy"));
}

}  // namespace
}  // namespace wavroute::testing
