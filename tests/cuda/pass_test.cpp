// Passes of small models on the back end `cuda`, on the emulator of its kernels or on a GPU,
// against passes of stock operators in double on the CPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/model/small_model.h"
#include "tests/ops/tested_backend.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

std::unique_ptr<Decoder> cuda_model(const DecoderSpec& spec, Precision precision) {
  auto model = scattered_model(spec, precision, ops::tested_device());
  model->use_backend(ops::make_tested_backend());
  return model;
}

class CudaPass : public ::testing::TestWithParam<SchemeCase> {};

INSTANTIATE_TEST_SUITE_P(Registry, CudaPass, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

// As in double up to rounding; a wrong term would be of the size of the numbers.
TEST_P(CudaPass, HasTheValuesAndGradientsOfTheComposedOne) {
  const DecoderSpec spec = small_spec(GetParam());
  const PassRecord exact = record_pass(*scattered_model(spec), training());
  for (const auto& [precision, rounding] :
       {std::pair{Precision::kFp32, 1e-5}, {Precision::kBf16, 0.1}}) {
    const auto model = cuda_model(spec, precision);
    ASSERT_EQ(model->backend().kind(), ops::BackendKind::kCuda);
    const PassRecord actual = record_pass(*model, training());
    EXPECT_LE(error_of(actual.logits, exact.logits), rounding);
    EXPECT_NEAR(actual.sums.loss_sum, exact.sums.loss_sum, 18 * rounding);
    EXPECT_NEAR(actual.sums.auxiliary, exact.sums.auxiliary, 18 * rounding);
    EXPECT_LE(error_of(all_of(actual.gradients), all_of(exact.gradients)), 5 * rounding);
    if (precision == Precision::kBf16) continue;
    for (const auto& [name, gradient] : exact.gradients) {
      EXPECT_LE(difference(actual.gradients.at(name).to(at::kDouble), gradient),
                1e-4 * all_of(exact.gradients).abs().max().item<double>())
          << name;
    }
  }
}

TEST_P(CudaPass, IsTheSameBitForBitWithLayersRecomputed) {
  const auto model = cuda_model(small_spec(GetParam()), Precision::kFp32);
  const PassRecord expected = record_pass(*model, training());
  const PassRecord actual = record_pass(*model, training(), Recompute::kLayer);
  EXPECT_TRUE(at::equal(actual.logits, expected.logits));
  expect_equal(actual.gradients, expected.gradients);
}

TEST_P(CudaPass, TakesAnEmptyBatch) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const auto model = cuda_model(small_spec(GetParam()), precision);
    const at::Tensor ids =
        at::empty({0, model->spec().model.context}, at::kLong).to(ops::tested_device());
    PassOptions options;
    options.pass = training();
    model->parameters().zero_grad();
    EXPECT_EQ(training_pass(*model, ids, ids, options).loss_sum, 0.0);
    for (const FlatGroup& group : model->parameters().groups()) {
      EXPECT_EQ(group.grad.abs().sum().item<double>(), 0.0);
    }
  }
}

TEST_P(CudaPass, DecodesLikeTheComposedOne) {
  const DecoderSpec spec = small_spec(GetParam());
  const at::Tensor ids = random_tokens(2, spec.model.context);
  const auto decoded = [&](const Decoder& model) {
    return logits_in_pieces(model, ids, prompt_and_tokens(5, ids.size(1)));
  };
  const at::Tensor exact = decoded(*scattered_model(spec));
  EXPECT_LE(error_of(decoded(*cuda_model(spec, Precision::kFp32)), exact), 1e-5);
}

TEST_P(CudaPass, EvaluatesLikeTheComposedOne) {
  const DecoderSpec spec = small_spec(GetParam());
  const at::Tensor ids = random_tokens(2, spec.model.context);
  const at::Tensor exact = logits_of(*scattered_model(spec), ids);
  EXPECT_LE(error_of(logits_of(*cuda_model(spec, Precision::kFp32), ids), exact), 1e-5);
}

}  // namespace
}  // namespace wavroute
