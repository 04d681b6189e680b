// A pass on our kernels against the same pass of stock operators, every scheme.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <map>
#include <string>
#include <vector>

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
// single number, which may be nearly zero by chance.
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
  static PassRecord pass_of(const DecoderSpec& spec, Precision precision, KernelChoice kernels,
                            uint64_t draw) {
    const auto model = fresh_model(spec, precision);
    scatter(*model, {}, draw);
    model->use_kernels(kernels);
    return record_pass(*model, training());
  }

  // The fused pass is as close to float64 as the composed one of its precision, over several draws
  // of the parameters: within a factor of 2 for logits and for all gradients together, of 3 for one
  // parameter or one kind, whose errors are fewer numbers. `floor` stands for one rounding.
  static void expect_as_exact(const DecoderSpec& spec, Precision precision, double floor) {
    ErrorRatio logits, loss, gradients;
    std::map<std::string, ErrorRatio> kinds;
    for (uint64_t draw = 1; draw <= ErrorRatio::kDraws; ++draw) {
      const PassRecord exact = pass_of(spec, Precision::kFp64, KernelChoice::kComposed, draw);
      const PassRecord composed = pass_of(spec, precision, KernelChoice::kComposed, draw);
      const PassRecord fused = pass_of(spec, precision, KernelChoice::kFused, draw);
      logits.add(error_of(fused.logits, exact.logits), error_of(composed.logits, exact.logits),
                 floor);
      loss.add(std::abs(fused.sums.loss_sum - exact.sums.loss_sum),
               std::abs(composed.sums.loss_sum - exact.sums.loss_sum), 18 * floor);
      EXPECT_NEAR(fused.sums.auxiliary, exact.sums.auxiliary, 18 * floor);
      const at::Tensor all = all_of(exact.gradients);
      gradients.add(error_of(all_of(fused.gradients), all),
                    error_of(all_of(composed.gradients), all), floor);
      const NamedTensors of_fused = by_kind(fused.gradients);
      const NamedTensors of_composed = by_kind(composed.gradients);
      for (const auto& [kind, gradient] : by_kind(exact.gradients)) {
        kinds[kind].add(error_of(of_fused.at(kind), gradient),
                        error_of(of_composed.at(kind), gradient), floor);
      }
    }
    EXPECT_LE(logits.mean(), 2.0);
    EXPECT_LE(loss.mean(), 2.0);
    EXPECT_LE(gradients.mean(), 2.0);
    for (const auto& [kind, ratio] : kinds) EXPECT_LE(ratio.mean(), 3.0) << kind;
  }
};

INSTANTIATE_TEST_SUITE_P(Registry, FusedPass, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

TEST_P(FusedPass, HasTheValuesAndGradientsOfTheComposedOneInFp32) {
  expect_as_exact(small_spec(GetParam()), Precision::kFp32, 1e-6);
}

TEST_P(FusedPass, HasTheValuesAndGradientsOfTheComposedOneInBf16) {
  expect_as_exact(small_spec(GetParam()), Precision::kBf16, 4e-3);
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

// Every eps 0, a token whose embedding is 0, and updates of 0: sums, details and norms of zeros.
TEST_P(FusedPass, GivesRowsOfZerosTheValueAndTheGradientZeroAsTheComposedOneDoes) {
  DecoderSpec spec = small_spec(GetParam());
  spec.model.rms_norm_eps = 0.0;
  spec.model.output_init = 0.0;
  for (const OptionSpec& option : find_scheme(spec.scheme).options) {
    if (option.name == "matching_epsilon") spec.options[option.name] = 0.0;
  }
  const auto pass_of = [&](Precision precision, KernelChoice kernels) {
    const auto model = fresh_model(spec, precision);
    scatter(*model, {"o_proj", "down_proj"});
    model->embedding().value.detach()[3].zero_();
    model->use_kernels(kernels);
    return record_pass(*model, training());
  };
  const PassRecord exact = pass_of(Precision::kFp64, KernelChoice::kComposed);
  for (const auto& [name, gradient] : exact.gradients) {
    EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << name;
  }
  for (const KernelChoice kernels : {KernelChoice::kFused, KernelChoice::kComposed}) {
    const PassRecord record = pass_of(Precision::kFp32, kernels);
    EXPECT_LE(error_of(record.logits, exact.logits), 1e-5);
    EXPECT_LE(error_of(all_of(record.gradients), all_of(exact.gradients)), 1e-4);
    const PassRecord rough = pass_of(Precision::kBf16, kernels);
    EXPECT_TRUE(all_of(rough.gradients).isfinite().all().item<bool>());
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

TEST_P(FusedPass, RunsALayerProgramInBothPrecisions) {
  const DecoderSpec spec = small_spec(GetParam());
  if (spec.scheme == "act" || spec.scheme == "full_attnres") GTEST_SKIP() << "takes no program";
  const LayerProgram program = LayerProgram::parse("0,2x2,3", spec.model.layers);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    std::vector<at::Tensor> gradients;
    for (const KernelChoice kernels : {KernelChoice::kFused, KernelChoice::kComposed}) {
      const auto model = model_of(spec, precision, kernels);
      const at::Tensor ids = random_tokens(2, spec.model.context);
      PassOptions options;
      options.pass = training();
      options.program = &program;
      model->parameters().zero_grad();
      EXPECT_GT(training_pass(*model, ids, ids, options).loss_sum, 0.0);
      gradients.push_back(all_of(gradients_of(*model)));
    }
    EXPECT_LE(error_of(gradients[0], gradients[1]), precision == Precision::kFp32 ? 1e-3 : 1.0);
  }
}

// Every way to leave layers out or run them twice: blocks that lack their first updates, whole
// blocks, and both halves of a block in turn.
TEST_P(FusedPass, EvaluatesEveryForwardProgramLikeTheComposedOne) {
  const DecoderSpec spec = small_spec(GetParam());
  if (spec.scheme == "act" || spec.scheme == "full_attnres") GTEST_SKIP() << "takes no program";
  const auto fused = model_of(spec, Precision::kFp32, KernelChoice::kFused);
  const auto composed = model_of(spec, Precision::kFp32, KernelChoice::kComposed);
  const at::Tensor ids = random_tokens(2, spec.model.context);
  const int64_t layers = spec.model.layers;
  for (int64_t number = 1; number < std::pow(3, layers); ++number) {
    std::vector<int64_t> order;
    int64_t digits = number;
    for (int64_t layer = 0; layer < layers; ++layer, digits /= 3) {
      order.insert(order.end(), static_cast<size_t>(digits % 3), layer);
    }
    const LayerProgram program(order, layers);
    const at::Tensor expected = logits_of(*composed, ids, &program);
    InferenceState state = fused->inference_state(2, spec.model.context, &program);
    ForwardOptions options;
    options.program = &program;
    options.state = &state;  // programs run on our kernels with a cache
    EXPECT_LE(difference(fused->forward(ids, options).logits, expected),
              1e-4 * expected.abs().max().item<double>())
        << program.text();
  }
}

TEST_P(FusedPass, DecodesAForwardProgramAsItPrefillsIt) {
  const DecoderSpec spec = small_spec(GetParam());
  if (spec.scheme == "act" || spec.scheme == "full_attnres") GTEST_SKIP() << "takes no program";
  const auto model = model_of(spec, Precision::kFp32, KernelChoice::kFused);
  const LayerProgram program = LayerProgram::parse("1,2x2,3", spec.model.layers);
  const int64_t length = spec.model.context;
  const at::Tensor ids = random_tokens(2, length);
  const at::Tensor whole = logits_of(*model, ids, &program);
  InferenceState state = model->inference_state(2, length, &program);
  ForwardOptions options;
  options.program = &program;
  options.state = &state;
  std::vector<at::Tensor> steps = {model->forward(ids.narrow(1, 0, 3), options).logits};
  for (int64_t t = 3; t < length; ++t) {
    steps.push_back(model->forward(ids.narrow(1, t, 1), options).logits);
  }
  EXPECT_LE(difference(at::cat(steps, 1), whole), 1e-4 * whole.abs().max().item<double>());
}

TEST_P(FusedPass, TakesNothingFromTheSystemAfterTheFirstOne) {
  const auto model = model_of(small_spec(GetParam()), Precision::kFp32, KernelChoice::kFused);
  static_cast<void>(record_pass(*model, training()));
  const auto& arena = dynamic_cast<const ops::Arena&>(model->backend().memory());
  const int64_t misses = arena.misses();
  EXPECT_GT(misses, 0);
  for (int i = 0; i < 2; ++i) static_cast<void>(record_pass(*model, training()));
  EXPECT_EQ(arena.misses(), misses);
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
  EXPECT_EQ(model->backend().kind(), ops::BackendKind::kComposed);
  EXPECT_THROW(model->use_kernels(KernelChoice::kFused), UserError);
}

}  // namespace
}  // namespace wavroute
