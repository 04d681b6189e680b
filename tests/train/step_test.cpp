// One training step.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "tests/model/small_model.h"
#include "train/step.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kRows = 4, kContext = 9;
constexpr double kRounding = 1e-12;

Batch random_batch() {
  return {random_tokens(kRows, kContext), random_tokens(kRows, kContext, "next")};
}

TrainStepPlan plan(int64_t micro_batch, double clip = 0.0) {
  return {micro_batch, Recompute::kNone, clip};
}

// The first step of an optimizer. It leaves the gradients at zero, and (1 - beta1) times them in
// the first moments: they are put back, for gradients_of().
TrainStepResult step(Decoder& model, const TrainStepPlan& how, double lr = 0.01) {
  const OptimizerConfig config;
  AdamW optimizer(model.parameters(), config);
  const TrainStepResult result = train_step(model, optimizer, random_batch(), how, training(), lr);
  const at::NoGradGuard no_grad;
  for (size_t g = 0; g < optimizer.first_moments().size(); ++g) {
    model.parameters().groups()[g].grad.copy_(optimizer.first_moments()[g] /
                                              (1.0 - config.betas[0]));
  }
  return result;
}

class StepOfEveryScheme : public ::testing::TestWithParam<SchemeCase> {};

INSTANTIATE_TEST_SUITE_P(Registry, StepOfEveryScheme, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

TEST_P(StepOfEveryScheme, HasTheSameGradientsInMicroBatches) {
  const auto whole = scattered_model(small_spec(GetParam()));
  const TrainStepResult expected = step(*whole, plan(4));
  const NamedTensors gradients = gradients_of(*whole);
  EXPECT_GT(gradients.at("lm_head.weight").abs().max().item<double>(), 0.0);
  for (const int64_t rows : {3, 2, 1}) {  // the last of three has one
    const auto parts = scattered_model(small_spec(GetParam()));
    const TrainStepResult actual = step(*parts, plan(rows));
    EXPECT_NEAR(actual.loss, expected.loss, kRounding);
    EXPECT_NEAR(actual.auxiliary, expected.auxiliary, kRounding);
    EXPECT_NEAR(actual.mean_depth, expected.mean_depth, kRounding);
    EXPECT_NEAR(actual.grad_norm, expected.grad_norm, kRounding);
    expect_equal(gradients_of(*parts), gradients, kRounding);
  }
}

TEST_P(StepOfEveryScheme, RepeatsAStepBitForBit) {
  const auto run = [&] {
    auto model = fresh_model(small_spec(GetParam()), Precision::kFp32);
    AdamW optimizer(model->parameters(), {});
    for (int64_t s = 0; s < 3; ++s) {
      const Pass pass{true, 5, {s, 3}};
      static_cast<void>(train_step(*model, optimizer, random_batch(), plan(2, 1.0), pass, 0.01));
    }
    return values_of(*model);
  };
  expect_equal(run(), run());
}

TEST(Batch, SlicesShareItsMemory) {
  const Batch batch = random_batch();
  const Batch part = batch.slice(2, 4);
  EXPECT_EQ(part.rows(), 2);
  EXPECT_EQ(part.input_ids().data(), batch.input_ids().data() + 2 * kContext);
  EXPECT_TRUE(part.targets.is_contiguous());
  EXPECT_TRUE(at::equal(part.targets, batch.targets.narrow(0, 2, 2)));
}

TEST(Step, ReportsTheMeanCrossEntropyBeforeTheUpdate) {
  const auto model = scattered_model(small_spec("wav"));
  const at::Tensor logits = logits_of(*model, random_tokens(kRows, kContext));
  const at::Tensor next = random_tokens(kRows, kContext, "next");
  const at::Tensor picked = at::log_softmax(logits, -1).gather(-1, next.unsqueeze(-1));
  EXPECT_NEAR(step(*model, plan(2)).loss, -picked.mean().item<double>(), kRounding);
}

TEST(Step, LowersTheLossOfItsOwnBatch) {
  for (const SchemeInfo& scheme : residual_schemes()) {
    const auto model = fresh_model(small_spec(scheme.name), Precision::kFp32);
    AdamW optimizer(model->parameters(), {});
    const Pass pass{true, 5, {60, 100}};  // the same layers in every step
    std::vector<double> losses;
    for (int s = 0; s < 8; ++s) {
      losses.push_back(
          train_step(*model, optimizer, random_batch(), plan(4, 1.0), pass, 0.01).loss);
    }
    EXPECT_NEAR(losses.front(), std::log(17.0), 0.05) << scheme.name;  // even guesses
    EXPECT_LT(losses.back(), losses.front() - 0.1) << scheme.name;
  }
}

TEST(Step, WeighsTheAuxiliaryTermByItsRows) {
  // Gradients at three values of tau: their differences come from tau (N + R) alone.
  const auto with_tau = [](double tau) {
    const auto model = scattered_model(small_spec("act", {{"tau", tau}}));
    const TrainStepResult result = step(*model, plan(1));
    return std::pair{result, gradients_of(*model).at("model.layers.0.halt.bias")};
  };
  const auto [none, without] = with_tau(0.0);
  const auto [some, with] = with_tau(1.0);
  const auto [more, doubled] = with_tau(2.0);
  EXPECT_EQ(none.auxiliary, 0.0);
  EXPECT_EQ(none.loss, some.loss);  // the auxiliary term is separate
  EXPECT_GT(some.auxiliary, 1.0);   // a token takes at least one layer
  EXPECT_NEAR(more.auxiliary, 2.0 * some.auxiliary, kRounding);
  EXPECT_GT(difference(with, without), 1e-3);
  EXPECT_LE(difference(doubled - without, 2.0 * (with - without)), kRounding);
}

TEST(Step, ClipsTheGradientToItsNorm) {
  const auto plain = scattered_model(small_spec("wav"));
  const double norm = step(*plain, plan(4)).grad_norm;
  const double clip = 0.25 * norm;
  const auto clipped = scattered_model(small_spec("wav"));
  EXPECT_EQ(step(*clipped, plan(4, clip)).grad_norm, norm);  // reported before clipping
  EXPECT_NEAR(gradient_norm(clipped->backend(), clipped->parameters()), clip, kRounding);
  NamedTensors expected = gradients_of(*plain);
  for (auto& [name, gradient] : expected) gradient = gradient * 0.25;
  expect_equal(gradients_of(*clipped), expected, kRounding);

  const auto below = scattered_model(small_spec("wav"));
  static_cast<void>(step(*below, plan(4, 2.0 * norm)));
  expect_equal(gradients_of(*below), gradients_of(*plain));
}

// The bits of all values, so that a NaN equals itself.
std::vector<at::Tensor> bits_of(const Decoder& model) {
  std::vector<at::Tensor> bits;
  for (const FlatGroup& group : model.parameters().groups()) {
    bits.push_back(group.value.view(at::kInt).clone());
  }
  return bits;
}

TEST(Step, UpdatesNothingWhereTheLossOrTheGradientIsNotFinite) {
  const std::vector<std::pair<const char*, float>> broken = {
      {"model.norm.weight", std::numeric_limits<float>::quiet_NaN()},
      {"model.layers.1.mlp.gate_proj.weight", std::numeric_limits<float>::quiet_NaN()},
      {"lm_head.weight", std::numeric_limits<float>::infinity()},
      // Finite values, and a gradient whose norm is not.
      {"model.norm.weight", 1e37F},
  };
  for (const auto& [name, value] : broken) {
    for (const char* scheme : {"prenorm", "wav"}) {
      const auto model = scattered_model(small_spec(scheme), Precision::kFp32);
      set_values(*model, name, value);
      const std::vector<at::Tensor> before = bits_of(*model);
      AdamW optimizer(model->parameters(), {});
      const TrainStepResult result =
          train_step(*model, optimizer, random_batch(), plan(2, 1.0), training(), 0.01);
      EXPECT_FALSE(result.is_finite()) << scheme << " " << name;
      EXPECT_EQ(optimizer.updates(), 0);
      const std::vector<at::Tensor> after = bits_of(*model);
      for (size_t g = 0; g < before.size(); ++g) {
        EXPECT_TRUE(at::equal(after[g], before[g])) << scheme << " " << name;
        EXPECT_TRUE(optimizer.first_moments()[g].eq(0.0).all().item<bool>());
        EXPECT_TRUE(optimizer.second_moments()[g].eq(0.0).all().item<bool>());
      }
    }
  }
}

TEST(Step, StartsFromZeroGradients) {
  const auto model = scattered_model(small_spec("prenorm"));
  static_cast<void>(step(*model, plan(4), /*lr=*/0.0));
  const NamedTensors first = gradients_of(*model);
  static_cast<void>(step(*model, plan(4), /*lr=*/0.0));
  expect_equal(gradients_of(*model), first);
}

}  // namespace
}  // namespace wavroute
