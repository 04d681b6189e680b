// Adaptive computation time against its formula.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "tests/residual/halting.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr double kRounding = 1e-12;

class Act : public ::testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Decoder> model_ = scattered_model(
      small_spec("act", {{"shared", GetParam()}, {"epsilon", 0.2}, {"tau", 0.25}}, 6));
  at::Tensor ids_ = random_tokens(2, 9);
  Halting expected_ = halting_of(*model_, ids_);

  void SetUp() override {
    ASSERT_GT(expected_.margin.min().item<double>(), 1e-9);
    // Not the trivial case: tokens halt at different layers.
    ASSERT_GT(expected_.depth.max().item<double>(), expected_.depth.min().item<double>());
  }
};

INSTANTIATE_TEST_SUITE_P(Layers, Act, ::testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "Shared" : "Distinct");
});

TEST_P(Act, HaltsTokensWhereTheFormulaDoes) {
  RecordingTaps taps;
  ForwardOptions options;
  options.taps = &taps;
  const ForwardResult result = model_->forward(ids_, options);
  EXPECT_TRUE(at::equal(taps.depth, expected_.depth));
  EXPECT_EQ(result.mean_depth.item<double>(), expected_.depth.mean().item<double>());
}

TEST_P(Act, MixesTheStatesByTheirProbabilitiesAndTheRemainder) {
  EXPECT_LE(difference(logits_of(*model_, ids_), logits_after(*model_, expected_.output)),
            kRounding);
}

TEST_P(Act, AddsTheMeanPonderCostToTheLoss) {
  const double expected = 0.25 * (expected_.depth + expected_.remainder).mean().item<double>();
  EXPECT_NEAR(record_pass(*model_, training()).sums.auxiliary, expected, kRounding);
  EXPECT_NEAR(model_->forward(ids_, {}).auxiliary.item<double>(), expected, kRounding);
}

TEST_P(Act, LeavesHaltedTokensOutWithoutChangingTheLogits) {
  for (size_t layer = 0; layer < expected_.left_out.size(); ++layer) {
    EXPECT_TRUE(at::equal(expected_.left_out[layer], expected_.has_halted[layer])) << layer;
  }
  EXPECT_GT(expected_.left_out.back().numel(), 0);
  // In training every token goes through every layer, its update masked.
  const PassRecord masked = record_pass(*model_, training());
  EXPECT_LE(difference(logits_of(*model_, ids_), masked.logits), kRounding);
}

}  // namespace
}  // namespace wavroute
