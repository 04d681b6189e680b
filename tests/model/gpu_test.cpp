// A pass on a GPU against the same pass on the CPU, every scheme. Skipped where there is no GPU.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr double kRounding = 1e-9;  // of double, over a pass
const at::Device kGpu(at::kCUDA, 0);

class OnGpu : public ::testing::TestWithParam<SchemeCase> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "libtorch sees no GPU";
  }
};

INSTANTIATE_TEST_SUITE_P(Registry, OnGpu, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

std::unique_ptr<Decoder> composed_model(const DecoderSpec& spec, Precision precision,
                                        at::Device device) {
  auto model = scattered_model(spec, precision, device);
  model->use_kernels(KernelChoice::kComposed);
  return model;
}

TEST_P(OnGpu, HasTheValuesAndGradientsOfTheCpu) {
  const DecoderSpec spec = small_spec(GetParam());
  const PassRecord expected =
      record_pass(*composed_model(spec, Precision::kFp64, at::kCPU), training());
  const auto model = composed_model(spec, Precision::kFp64, kGpu);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock, Recompute::kLayer}) {
    const PassRecord actual = record_pass(*model, training(), recompute);
    EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
    EXPECT_NEAR(actual.sums.loss_sum, expected.sums.loss_sum, kRounding);
    EXPECT_NEAR(actual.sums.auxiliary, expected.sums.auxiliary, kRounding);
    EXPECT_NEAR(actual.sums.mean_depth, expected.sums.mean_depth, kRounding);
    expect_equal(actual.gradients, expected.gradients, kRounding);
  }
}

TEST_P(OnGpu, IsAsExactAsTheCpuInNarrowTypes) {
  const DecoderSpec spec = small_spec(GetParam());
  const PassRecord exact =
      record_pass(*composed_model(spec, Precision::kFp64, at::kCPU), training());
  const at::Tensor gradients = all_of(exact.gradients);
  for (const auto& [precision, floor] :
       {std::pair{Precision::kFp32, 1e-6}, {Precision::kBf16, 4e-3}}) {
    const PassRecord cpu = record_pass(*composed_model(spec, precision, at::kCPU), training());
    const PassRecord gpu = record_pass(*composed_model(spec, precision, kGpu), training());
    EXPECT_LE(error_of(gpu.logits, exact.logits), 4.0 * error_of(cpu.logits, exact.logits) + floor);
    EXPECT_LE(error_of(all_of(gpu.gradients), gradients),
              4.0 * error_of(all_of(cpu.gradients), gradients) + floor);
  }
}

// The logits of a prompt of four tokens, and of each token after it through the cache.
at::Tensor decoded(const Decoder& model, const at::Tensor& ids) {
  return logits_in_pieces(model, ids, prompt_and_tokens(4, ids.size(1)));
}

TEST_P(OnGpu, DecodesLikeTheCpu) {
  DecoderSpec spec = small_spec(GetParam());
  const at::Tensor ids = random_tokens(2, spec.model.context + 2);  // past the model's context
  const auto cpu = composed_model(spec, Precision::kFp64, at::kCPU);
  const auto gpu = composed_model(spec, Precision::kFp64, kGpu);
  EXPECT_LE(difference(decoded(*gpu, ids), decoded(*cpu, ids)), kRounding);
}

TEST_P(OnGpu, TellsTheTapsWhatTheCpuTells) {
  const DecoderSpec spec = small_spec(GetParam());
  const at::Tensor ids = random_tokens(2, spec.model.context);
  const auto told_by = [&](at::Device device) {
    const auto model = composed_model(spec, Precision::kFp64, device);
    RecordingTaps taps;
    ForwardOptions options;
    options.taps = &taps;
    static_cast<void>(model->forward(ids.to(device), options));
    std::vector<at::Tensor> told = taps.gates;
    for (const RecordingTaps::Read& read : taps.reads) told.push_back(read.weights);
    if (taps.depth.defined()) told.push_back(taps.depth);
    return told;
  };
  const std::vector<at::Tensor> expected = told_by(at::kCPU), actual = told_by(kGpu);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_LE(difference(actual[i].cpu(), expected[i]), kRounding);
  }
}

}  // namespace
}  // namespace wavroute
