#include "inspect/depth_mixing.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/inspect/support.h"
#include "wavroute/error.h"

namespace wavroute::testing {
namespace {

constexpr int64_t kRows = 2, kTokens = 9;

void expect_reads_are_mixed_writes(Decoder& model, const LayerProgram* program, double tolerance) {
  const at::Tensor ids = random_tokens(kRows, kTokens);
  LayerPass pass = run_layers(model, ids, {.program = program});
  const Mixing mixing = mixing_of(model, pass, program);
  std::vector<at::Tensor> writes = {embedded(model, ids)};
  writes.insert(writes.end(), pass.updates.begin(), pass.updates.end());
  for (size_t reader = 0; reader < mixing.size(); ++reader) {
    at::Tensor sum = at::zeros_like(pass.reads[reader]);
    for (size_t j = 0; j <= reader; ++j) sum = sum + mixing[reader][j] * writes[j];
    EXPECT_LE(difference(sum, pass.reads[reader]), tolerance) << "reader " << reader;
  }
}

class MixingOfEveryScheme : public ::testing::TestWithParam<SchemeCase> {};

// At the grain of tokens and channels: a coefficient that was averaged would not pass.
TEST_P(MixingOfEveryScheme, WritesWeightedByTheMatrixSumToWhatIsRead) {
  const auto model = scattered_model(small_spec(GetParam()));
  expect_reads_are_mixed_writes(*model, nullptr, 1e-11);
}

TEST_P(MixingOfEveryScheme, TheIdentityHoldsInFloat) {
  const auto model = scattered_model(small_spec(GetParam()), Precision::kFp32);
  expect_reads_are_mixed_writes(*model, nullptr, 1e-5);
}

TEST_P(MixingOfEveryScheme, TheIdentityHoldsForLayersLeftOutAndRepeated) {
  const auto model = scattered_model(small_spec(GetParam()));
  const LayerProgram program = LayerProgram::parse("0,2x2,3", GetParam().layers);
  try {
    model->check_program(program);
  } catch (const UserError&) {
    GTEST_SKIP() << "takes no programs";
  }
  expect_reads_are_mixed_writes(*model, &program, 1e-11);
}

INSTANTIATE_TEST_SUITE_P(Schemes, MixingOfEveryScheme, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& param) { return param.param.label; });

Mixing fresh_mixing(const std::string& scheme, Options options = {}) {
  const auto model = fresh_model(small_spec(scheme, std::move(options)));
  LayerPass pass = run_layers(*model, random_tokens(kRows, kTokens), {});
  return mixing_of(*model, pass);
}

// docs/method.md: with their scales, gates and weights at these values the schemes are prenorm.
TEST(DepthMixing, SchemesThatEqualPrenormHaveItsMatrix) {
  const std::vector<SchemeCase> cases = {{"prenorm", "prenorm", {}},
                                         {"layerscale", "layerscale", {{"init", 1.0}}},
                                         {"block_layerscale", "block_layerscale", {}},
                                         {"layerdrop", "layerdrop", {}},
                                         {"gated", "gated", {{"frozen", true}}},
                                         {"denseformer", "denseformer", {}}};
  for (const SchemeCase& same : cases) {
    for (const auto& row : fresh_mixing(same.scheme, same.options)) {
      for (const at::Tensor& entry : row) {
        EXPECT_EQ(entry.eq(1.0).all().item<bool>(), true) << same.label;
      }
    }
  }
}

TEST(DepthMixing, RezeroWithScalesOfOneHasPrenormsMatrix) {
  const auto model = fresh_model(small_spec("rezero"));
  set_values(*model, "residual_scale", 1.0);
  LayerPass pass = run_layers(*model, random_tokens(kRows, kTokens), {});
  for (const auto& row : mixing_of(*model, pass)) {
    for (const at::Tensor& entry : row) EXPECT_EQ(mean_of(entry), 1.0);
  }
}

TEST(DepthMixing, RezeroPassesTheEmbeddingAloneAtFirst) {
  for (const auto& row : fresh_mixing("rezero")) {
    for (size_t j = 0; j < row.size(); ++j) EXPECT_EQ(mean_of(row[j]), j == 0 ? 1.0 : 0.0);
  }
}

// An even average of n sources, each of which is a sum of updates: prenorm's stream over n.
TEST(DepthMixing, FreshRoutersWithoutDetailsShareEvenly) {
  for (const char* scheme : {"block_attnres", "full_attnres"}) {
    for (const auto& row : fresh_mixing(scheme)) {
      const double share = mean_of(row[0]);
      const double sources = 1.0 / share;
      EXPECT_NEAR(sources, std::round(sources), 1e-9) << scheme;
      for (const at::Tensor& entry : row) EXPECT_NEAR(mean_of(entry), share, 1e-12) << scheme;
    }
  }
}

// 4 layers of haares in one block: the read-out has e, S and Q, whose share is e^beta of another's.
// Signs of a detail show: earlier updates get S's share and Q's times its ratio, later ones less.
TEST(DepthMixing, DetailsAddToUpdatesOfOneHalfAndTakeFromTheOther) {
  const Mixing mixing = fresh_mixing("haares", {{"blocks", int64_t{1}}});
  const double summary = 1.0 / (2.0 + std::exp(-4.0));
  const auto& read_out = mixing.back();
  ASSERT_EQ(read_out.size(), 9U);
  EXPECT_NEAR(mean_of(read_out[0]), summary, 1e-12);
  for (size_t j = 1; j < 9; ++j) {
    const at::Tensor from_detail = read_out[j] - summary;
    EXPECT_TRUE((j <= 4 ? from_detail.gt(0.0) : from_detail.lt(0.0)).all().item<bool>()) << j;
  }
  EXPECT_LE(difference(read_out[1] - summary, summary - read_out[8]), 1e-12);
}

// A token that has halted takes no later update; its weights are the halting probabilities.
TEST(DepthMixing, OfActIsOfHaltedTokens) {
  const auto model = scattered_model(small_spec("act"));
  LayerPass pass = run_layers(*model, random_tokens(kRows, kTokens), {});
  const at::Tensor depth = pass.depth;
  ASSERT_LT(depth.min().item<double>(), 4.0) << "nobody halts early";
  const Mixing mixing = mixing_of(*model, pass);
  for (size_t j = 1; j <= 8; ++j) {
    const auto layer = static_cast<double>((j + 1) / 2);
    const at::Tensor weight = mixing.back()[j].squeeze(-1);
    EXPECT_TRUE(at::equal(weight.ne(0.0), depth.ge(layer))) << "update " << j;
  }
  // The weights of a token's states sum to one.
  EXPECT_LE(difference(mixing.back()[0], at::ones_like(mixing.back()[0])), 1e-12);
}

}  // namespace
}  // namespace wavroute::testing
