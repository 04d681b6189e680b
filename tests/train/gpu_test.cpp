// Training on a GPU. Skipped where there is none.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/model/small_model.h"
#include "train/session.h"
#include "train/step.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kRows = 4;
const at::Device kGpu(at::kCUDA, 0);

class TrainsOnGpu : public ::testing::TestWithParam<SchemeCase> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "libtorch sees no GPU";
    Config config;
    config.train.device = DeviceKind::kCuda;
    config.train.threads = 1;
    const bool has_kernels = ops::why_no_cuda_backend().empty();
    EXPECT_EQ(resolve_machine(config, Machine()).train.kernels,
              has_kernels ? KernelChoice::kFused : KernelChoice::kComposed);
  }
};

INSTANTIATE_TEST_SUITE_P(Registry, TrainsOnGpu, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

// Parameters after a few steps on random tokens.
NamedTensors trained(const DecoderSpec& spec, Precision precision, at::Device device) {
  const auto model = fresh_model(spec, precision, 1, device);
  model->use_kernels(KernelChoice::kComposed);
  AdamW optimizer(model->parameters(), {});
  const TrainStepPlan plan{2, Recompute::kNone, 1.0};
  const Batch batch{random_tokens(kRows, spec.model.context, "ids"),
                    random_tokens(kRows, spec.model.context, "next")};
  for (int64_t step = 0; step < 3; ++step) {
    static_cast<void>(
        train_step(*model, optimizer, batch, plan, Pass{true, 5, {60 + step, 100}}, 0.01));
  }
  return values_of(*model);
}

TEST_P(TrainsOnGpu, ToTheParametersOfTheCpu) {
  const DecoderSpec spec = small_spec(GetParam());
  expect_equal(trained(spec, Precision::kFp64, kGpu), trained(spec, Precision::kFp64, at::kCPU),
               1e-7);
}

TEST_P(TrainsOnGpu, ToTheSameBitsAgain) {
  DecoderSpec spec = small_spec(GetParam());
  spec.model.context = 300;  // attention adds up over several blocks of threads
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    expect_equal(trained(spec, precision, kGpu), trained(spec, precision, kGpu));
  }
}

TEST(PlanOnGpu, IsHeldToTheMemoryOfTheGpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "libtorch sees no GPU";
  Config config;
  config.train.device = DeviceKind::kCuda;
  config.train.precision = Precision::kFp32;
  config.model.layers = 12;
  config.model.width = 768;
  config.model.heads = 12;
  config.model.context = 1024;
  config.train.batch = 1 << 20;
  const Forecast plan = forecast(config, 256, Machine());
  EXPECT_GT(plan.available, 0.0);
  EXPECT_GT(plan.largest_micro_batch, 0);
  EXPECT_LT(plan.largest_micro_batch, config.train.batch);
}

}  // namespace
}  // namespace wavroute
