// A pass on our kernels against the same pass of stock operators, every scheme.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cctype>
#include <map>
#include <string>

#include "ops/arena.h"
#include "tests/model/small_model.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

std::unique_ptr<Decoder> model_of(const DecoderSpec& spec, Precision precision,
                                  KernelChoice kernels) {
  auto model = scattered_model(spec, precision);
  model->use_kernels(kernels);
  return model;
}

// Gradients by name, but those of a few numbers in groups of all layers: one layer's bias is a
// single number, which may be next to nothing by chance.
NamedTensors by_kind(const NamedTensors& gradients) {
  constexpr int64_t kFew = 8;
  std::map<std::string, NamedTensors> groups;
  for (const auto& [name, gradient] : gradients) {
    std::string kind = name;
    if (gradient.numel() <= kFew) {
      std::erase_if(kind, [](unsigned char c) { return std::isdigit(c) != 0; });
    }
    groups[kind].emplace(name, gradient);
  }
  NamedTensors kinds;
  for (const auto& [kind, group] : groups) kinds.emplace(kind, all_of(group));
  return kinds;
}

class FusedPass : public ::testing::TestWithParam<SchemeCase> {
 protected:
  // The fused pass is as far from float64 as the composed one of its precision: all gradients
  // together within `factor`; one parameter, or one kind, where chance weighs more, within six
  // times and `single`. `floor` stands for one rounding.
  static void expect_as_exact(const DecoderSpec& spec, Precision precision, double factor,
                              double floor, double single) {
    const PassRecord exact =
        record_pass(*model_of(spec, Precision::kFp64, KernelChoice::kComposed), training());
    const PassRecord composed =
        record_pass(*model_of(spec, precision, KernelChoice::kComposed), training());
    const PassRecord fused =
        record_pass(*model_of(spec, precision, KernelChoice::kFused), training());
    EXPECT_LE(error_of(fused.logits, exact.logits),
              factor * error_of(composed.logits, exact.logits) + floor);
    EXPECT_NEAR(fused.sums.loss_sum, exact.sums.loss_sum,
                factor * std::abs(composed.sums.loss_sum - exact.sums.loss_sum) + 18 * floor);
    EXPECT_NEAR(fused.sums.auxiliary, exact.sums.auxiliary, 18 * floor);
    const at::Tensor gradients = all_of(exact.gradients);
    EXPECT_LE(error_of(all_of(fused.gradients), gradients),
              factor * error_of(all_of(composed.gradients), gradients) + floor)
        << "composed: " << error_of(all_of(composed.gradients), gradients);
    const NamedTensors of_fused = by_kind(fused.gradients);
    const NamedTensors of_composed = by_kind(composed.gradients);
    for (const auto& [kind, gradient] : by_kind(exact.gradients)) {
      const double allowed = error_of(of_composed.at(kind), gradient);
      EXPECT_LE(error_of(of_fused.at(kind), gradient), 6.0 * allowed + single)
          << kind << ", composed: " << allowed;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Registry, FusedPass, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

TEST_P(FusedPass, HasTheValuesAndGradientsOfTheComposedOneInFp32) {
  expect_as_exact(small_spec(GetParam()), Precision::kFp32, 2.0, 1e-6, 4e-6);
}

TEST_P(FusedPass, HasTheValuesAndGradientsOfTheComposedOneInBf16) {
  // A router's gradient is made of differences of near equals, where h and mixtures of 8 bits show.
  expect_as_exact(small_spec(GetParam()), Precision::kBf16, 4.0, 4e-3, 0.3);
}

TEST_P(FusedPass, IsTheSameBitForBitWithBlocksOrLayersRecomputed) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const auto model = model_of(small_spec(GetParam()), precision, KernelChoice::kFused);
    const PassRecord expected = record_pass(*model, training());
    for (const Recompute recompute : {Recompute::kBlock, Recompute::kLayer}) {
      const PassRecord actual = record_pass(*model, training(), recompute);
      EXPECT_TRUE(at::equal(actual.logits, expected.logits));
      expect_equal(actual.gradients, expected.gradients);
    }
  }
}

TEST_P(FusedPass, IsTheSameBitForBitWithAnyNumberOfThreads) {
  DecoderSpec spec = small_spec(GetParam());
  spec.model.context = 67;  // several chunks of tokens
  const auto model = model_of(spec, Precision::kFp32, KernelChoice::kFused);
  const PassRecord expected = record_pass(*model, training());
  for (const int threads : {2, 3}) {
    at::set_num_threads(threads);
    const PassRecord actual = record_pass(*model, training());
    at::set_num_threads(1);
    EXPECT_TRUE(at::equal(actual.logits, expected.logits));
    expect_equal(actual.gradients, expected.gradients);
  }
}

TEST_P(FusedPass, TakesAnEmptyBatch) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const auto model = model_of(small_spec(GetParam()), precision, KernelChoice::kFused);
    const at::Tensor ids = at::empty({0, model->spec().model.context}, at::kLong);
    PassOptions options;
    options.pass = training();
    model->parameters().zero_grad();
    EXPECT_EQ(training_pass(*model, ids, ids, options).loss_sum, 0.0);
    for (const FlatGroup& group : model->parameters().groups()) {
      EXPECT_TRUE(at::equal(group.grad, at::zeros_like(group.grad)));
    }
  }
}

TEST_P(FusedPass, TakesNothingFromTheSystemAfterTheFirstOne) {
  const auto model = model_of(small_spec(GetParam()), Precision::kFp32, KernelChoice::kFused);
  static_cast<void>(record_pass(*model, training()));
  const int64_t misses = model->arena().misses();
  EXPECT_GT(misses, 0);
  for (int i = 0; i < 2; ++i) static_cast<void>(record_pass(*model, training()));
  EXPECT_EQ(model->arena().misses(), misses);
}

TEST_P(FusedPass, EvaluatesLikeTheComposedOne) {
  const DecoderSpec spec = small_spec(GetParam());
  const at::Tensor ids = random_tokens(2, spec.model.context);
  const at::Tensor composed =
      logits_of(*model_of(spec, Precision::kFp32, KernelChoice::kComposed), ids);
  const at::Tensor fused = logits_of(*model_of(spec, Precision::kFp32, KernelChoice::kFused), ids);
  EXPECT_LE(difference(fused, composed), 1e-4 * composed.abs().max().item<double>());
}

TEST(KernelChoice, IsRefusedWhereTheKernelsDoNotServe) {
  const auto model = fresh_model(small_spec("wav"), Precision::kFp64);
  EXPECT_FALSE(model->fused());
  EXPECT_THROW(model->use_kernels(KernelChoice::kFused), UserError);
  EXPECT_THROW(static_cast<void>(parse_kernel_choice("fast")), UserError);
}

}  // namespace
}  // namespace wavroute
