#include "inspect/router_starts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/inspect/small_text.h"

namespace wavroute::testing {
namespace {

class StartsOfEveryScheme : public ::testing::TestWithParam<SchemeCase> {};

TEST_P(StartsOfEveryScheme, AFreshModelHasNotMoved) {
  const auto model = fresh_model(small_spec(GetParam()), Precision::kFp64, /*seed=*/3);
  const std::vector<SchemeTensor> tensors = scheme_tensors(*model, 3);
  EXPECT_EQ(tensors.empty(), GetParam().scheme == "prenorm" || GetParam().scheme == "layerdrop");
  for (const auto& entry : moves_json(tensors, 1.0)) EXPECT_EQ(entry.at("moved"), 0.0) << entry;
}

TEST_P(StartsOfEveryScheme, AblationLeavesTheModelAsItWas) {
  const auto model = scattered_model(small_spec(GetParam()));
  const NamedTensors before = values_of(*model);
  const auto result =
      ablate(*model, scheme_tensors(*model, 1), {EvalWindows(small_text(25), 9, 0)}, {});
  expect_equal(values_of(*model), before);
  for (const auto& entry : result) {
    EXPECT_NE(entry.at("difference").get<double>(), 0.0) << entry;
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, StartsOfEveryScheme, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& param) { return param.param.label; });

TEST(SchemeTensors, BelongToASublayerOrTheReadOut) {
  const auto model = fresh_model(small_spec("wav"));
  for (const SchemeTensor& tensor : scheme_tensors(*model, 1)) {
    if (tensor.name == "model.layers.2.self_attention_res_proj.weight") {
      EXPECT_EQ(tensor.sublayer, 5);
      EXPECT_EQ(tensor.kind, "res_proj.weight");
    }
    if (tensor.name == "model.layers.2.mlp_res_bias") {
      EXPECT_EQ(tensor.sublayer, 6);
    }
    if (tensor.name == "model.output_attn_res_norm.weight") {
      EXPECT_EQ(tensor.sublayer, 9);
      EXPECT_EQ(tensor.kind, "res_norm.weight");
    }
  }
  const auto blocks = fresh_model(small_spec("block_layerscale"));
  EXPECT_EQ(scheme_tensors(*blocks, 1).at(0).sublayer, std::nullopt);
}

TEST(SchemeTensors, MovesAreMeasuredInReaches) {
  const auto model = fresh_model(small_spec("wav"));
  set_values(*model, "layers.1.mlp_res_proj.weight", 0.5);  // from 0
  const auto moves = moves_json(scheme_tensors(*model, 1), 0.1);
  const auto moved = std::ranges::find_if(moves, [](const auto& entry) {
    return entry.at("name") == "model.layers.1.mlp_res_proj.weight";
  });
  ASSERT_NE(moved, moves.end());
  EXPECT_NEAR(moved->at("moved").get<double>(), 0.5, 1e-12);
  EXPECT_NEAR(moved->at("ratio").get<double>(), 5.0, 1e-12);
  EXPECT_EQ(moved->at("sublayer"), 4);
}

// Without the seed nothing is said of what it drew.
TEST(SchemeTensors, AnUnknownStartIsNoStart) {
  const auto model = fresh_model(small_spec("gated"));
  const auto moves = moves_json(scheme_tensors(*model, std::nullopt), 1.0);
  ASSERT_FALSE(moves.empty());
  for (const auto& entry : moves) EXPECT_NE(entry.at("kind"), "gate.fc1.weight");
}

TEST(Ablation, IsTheLossOfAModelWithThatRouterFresh) {
  const EvalWindows windows(small_text(25), 9, 0);
  const auto model = scattered_model(small_spec("haares"));
  const auto result = ablate(*model, scheme_tensors(*model, 1), {windows}, {});
  ASSERT_EQ(result.size(), 8U);  // sublayer 1 has no router
  const double usual = mean_loss(*model, windows, {});
  set_values(*model, "layers.2.mlp_res_proj.weight", 0.0);
  set_values(*model, "layers.2.mlp_res_norm.weight", 1.0);
  set_values(*model, "layers.2.mlp_res_bias", -4.0);
  const auto& entry = result.at(4);
  EXPECT_EQ(entry.at("sublayer"), 6);
  EXPECT_EQ(entry.at("name"), "mlp 2");
  EXPECT_NEAR(entry.at("loss").get<double>(), mean_loss(*model, windows, {}), 1e-12);
  EXPECT_NEAR(entry.at("difference").get<double>(), mean_loss(*model, windows, {}) - usual, 1e-12);
}

}  // namespace
}  // namespace wavroute::testing
