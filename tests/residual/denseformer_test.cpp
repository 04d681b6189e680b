// DenseFormer: its averages, and that a fresh one is prenorm.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr double kRounding = 1e-12;  // of float64, at values near 1

const std::vector<Options> kSettings = {
    {},
    {{"dilation", int64_t{2}}},
    {{"period", int64_t{3}}},
    {{"dilation", int64_t{4}}, {"period", int64_t{2}}},
};

// Random but for the averages, which are as they start.
std::unique_ptr<Decoder> fresh_averages(const DecoderSpec& spec, Precision precision,
                                        KernelChoice kernels) {
  auto model = fresh_model(spec, precision);
  scatter(*model, {"depth_weights"});
  model->use_kernels(kernels);
  return model;
}

TEST(DenseFormer, AtInitIsPrenormBitForBit) {
  for (const Precision precision : {Precision::kFp64, Precision::kFp32, Precision::kBf16}) {
    const auto plain =
        fresh_averages(small_spec("prenorm", {}, 6), precision, KernelChoice::kComposed);
    const PassRecord expected = record_pass(*plain, training());
    for (const Options& options : kSettings) {
      const auto model =
          fresh_averages(small_spec("denseformer", options, 6), precision, KernelChoice::kComposed);
      const PassRecord actual = record_pass(*model, training());
      EXPECT_TRUE(at::equal(actual.logits, expected.logits));
      for (const auto& [name, gradient] : expected.gradients) {
        EXPECT_TRUE(at::equal(actual.gradients.at(name), gradient)) << name;
      }
    }
  }
}

TEST(DenseFormer, AtInitHasPrenormsLogitsBitForBitOnTheKernels) {
  const at::Tensor ids = random_tokens(2, 9);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const auto plain =
        fresh_averages(small_spec("prenorm", {}, 6), precision, KernelChoice::kFused);
    for (const Options& options : kSettings) {
      const auto model =
          fresh_averages(small_spec("denseformer", options, 6), precision, KernelChoice::kFused);
      EXPECT_TRUE(at::equal(logits_of(*model, ids), logits_of(*plain, ids)));
    }
  }
}

TEST(DenseFormer, AtInitRunsALayerProgramAsPrenormDoes) {
  const at::Tensor ids = random_tokens(2, 9);
  const auto plain =
      fresh_averages(small_spec("prenorm", {}, 6), Precision::kFp64, KernelChoice::kComposed);
  for (const char* text : {"every-other", "0,2x3,1,5", "5,0-2"}) {
    const LayerProgram program = LayerProgram::parse(text, 6);
    for (const Options& options : kSettings) {
      const auto model = fresh_averages(small_spec("denseformer", options, 6), Precision::kFp64,
                                        KernelChoice::kComposed);
      EXPECT_TRUE(at::equal(logits_of(*model, ids, &program), logits_of(*plain, ids, &program)))
          << text;
    }
  }
}

// The averages by layer: their weights' numbers, from e on.
std::map<std::string, std::vector<double>> averages_of(const Decoder& model) {
  std::map<std::string, std::vector<double>> result;
  for (const auto& [name, value] : values_of(model)) {
    if (!name.ends_with(".depth_weights")) continue;
    const double* numbers = value.const_data_ptr<double>();
    result[name] = {numbers, numbers + value.numel()};
  }
  return result;
}

TEST(DenseFormer, StoresAWeightForEverySourceThatDilationLeavesAndOneAverageAPeriod) {
  using Numbers = std::vector<double>;
  const std::map<std::string, Numbers> every = {{"model.layers.0.depth_weights", {0, 1}},
                                                {"model.layers.1.depth_weights", {0, 0, 1}},
                                                {"model.layers.2.depth_weights", {0, 0, 0, 1}},
                                                {"model.layers.3.depth_weights", {0, 0, 0, 0, 1}}};
  EXPECT_EQ(averages_of(*fresh_model(small_spec("denseformer"))), every);
  // After layer i from 1: sources i, i - 2, ...
  const std::map<std::string, Numbers> dilated = {{"model.layers.0.depth_weights", {1}},
                                                  {"model.layers.1.depth_weights", {0, 1}},
                                                  {"model.layers.2.depth_weights", {0, 1}},
                                                  {"model.layers.3.depth_weights", {0, 0, 1}}};
  EXPECT_EQ(averages_of(*fresh_model(small_spec("denseformer", {{"dilation", int64_t{2}}}))),
            dilated);
  const std::map<std::string, Numbers> rare = {
      {"model.layers.2.depth_weights", {0, 0, 0, 1}},
      {"model.layers.5.depth_weights", {0, 0, 0, 0, 0, 0, 1}}};
  EXPECT_EQ(averages_of(*fresh_model(small_spec("denseformer", {{"period", int64_t{3}}}, 7))),
            rare);
}

void set_weights(Decoder& model, const std::string& name, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  for (Parameter& parameter : model.parameters().parameters()) {
    if (parameter.slices[0].name == name) parameter.value.copy_(values);
  }
}

TEST(DenseFormer, OfADilationAndAPeriodIsTheWholeOneWithTheirWeightsAndNoOthers) {
  constexpr int64_t kDilation = 2, kPeriod = 3, kLayers = 6;
  const auto sparse = scattered_model(
      small_spec("denseformer", {{"dilation", kDilation}, {"period", kPeriod}}, kLayers));
  const auto full = scattered_model(small_spec("denseformer", {}, kLayers));
  const NamedTensors values = values_of(*sparse);
  for (int64_t i = 1; i <= kLayers; ++i) {
    const std::string name = "model.layers." + std::to_string(i - 1) + ".depth_weights";
    const at::Tensor weights = at::zeros({i + 1}, at::kDouble);
    if (i % kPeriod == 0) {
      weights.slice(0, i % kDilation, i + 1, kDilation).copy_(values.at(name));
    } else {
      weights[i] = 1.0;
    }
    set_weights(*full, name, weights);
  }
  const PassRecord expected = record_pass(*full, training());
  const PassRecord actual = record_pass(*sparse, training());
  EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
  for (const auto& [name, gradient] : actual.gradients) {
    if (name.ends_with(".depth_weights")) continue;
    EXPECT_LE(difference(gradient, expected.gradients.at(name)), kRounding) << name;
  }
}

TEST(DenseFormer, ReadsTheLatestOutputOfALayerThatRanAgainAndNoneOfOneThatDidNot) {
  // Only the average after layer 3 (from 0) is not a copy: of e, and of layers 0, 1 and 2.
  const auto model =
      fresh_averages(small_spec("denseformer"), Precision::kFp64, KernelChoice::kComposed);
  const at::Tensor ids = random_tokens(2, 9);
  const auto logits = [&](const char* text, const std::vector<double>& weights) {
    set_weights(*model, "model.layers.3.depth_weights", at::tensor(weights, at::kDouble));
    const LayerProgram program = LayerProgram::parse(text, 4);
    return logits_of(*model, ids, &program);
  };
  // What stands before layer 3 in each program is the latest output of its last layer.
  EXPECT_LE(difference(logits("0,1x3,3", {0, 0, 1, 0, 0}), logits("0,1x3", {0, 0, 0, 0, 1})),
            kRounding);
  EXPECT_LE(difference(logits("0,2,1,2,3", {0, 0, 0, 1, 0}), logits("0,2,1,2", {0, 0, 0, 0, 1})),
            kRounding);
  // Layer 1 has not run: its weight counts for nothing.
  EXPECT_TRUE(
      at::equal(logits("0,2-3", {0.5, 0.5, 9, 0.5, 1}), logits("0,2-3", {0.5, 0.5, -9, 0.5, 1})));
}

TEST(DenseFormer, CountsEveryTermOfItsAverages) {
  const auto extra = [](const Options& options) {
    const auto model = fresh_model(small_spec("denseformer", options));
    return model->residual().flops_per_token();
  };
  EXPECT_EQ(extra({}), 2.0 * 16 * (2 + 3 + 4 + 5));
  EXPECT_EQ(extra({{"dilation", int64_t{2}}}), 2.0 * 16 * (1 + 2 + 2 + 3));
  EXPECT_EQ(extra({{"period", int64_t{4}}}), 2.0 * 16 * 5);
  EXPECT_EQ(extra({{"period", int64_t{5}}}), 0.0);
}

}  // namespace
}  // namespace wavroute
