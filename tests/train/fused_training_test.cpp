// Training on our kernels against training on stock operators, in fp32.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/model/small_model.h"
#include "train/step.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kRows = 4, kContext = 9;

// Rows of one of three batches of random tokens.
FillRows batch_of(int64_t step) {
  return [step](int64_t begin, int64_t end, std::span<int64_t> inputs, std::span<int64_t> targets) {
    const at::Tensor all = random_tokens(kRows, kContext + 1, "batch " + std::to_string(step % 3));
    const at::Tensor ids = all.narrow(0, begin, end - begin);
    const at::Tensor in = ids.narrow(1, 0, kContext).contiguous();
    const at::Tensor out = ids.narrow(1, 1, kContext).contiguous();
    std::copy_n(in.const_data_ptr<int64_t>(), in.numel(), inputs.begin());
    std::copy_n(out.const_data_ptr<int64_t>(), out.numel(), targets.begin());
  };
}

class Training {
 public:
  Training(const std::string& scheme, KernelChoice kernels)
      : model_(fresh_model(small_spec(scheme), Precision::kFp32)),
        optimizer_(model_->parameters(), {}) {
    model_->use_kernels(kernels);
  }

  double step(int64_t number) {
    const Pass pass{true, 5, {number + 100, 1000}};
    const TrainStepPlan plan{kRows, kRows, kContext, Recompute::kNone, 1.0};
    return train_step(*model_, optimizer_, plan, batch_of(number), pass, 3e-3).loss;
  }
  Decoder& model() { return *model_; }

 private:
  std::unique_ptr<Decoder> model_;
  AdamW optimizer_;
};

// Moves every weight by its last bit.
void move_last_bits(Decoder& model) {
  const at::NoGradGuard no_grad;
  for (FlatGroup& group : model.parameters().groups()) group.value.mul_(1.0 + 0x1p-23);
}

double relative(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual - expected).norm() / expected.norm()).item<double>();
}

class FusedTraining : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Schemes, FusedTraining,
                         ::testing::Values("prenorm", "layerscale", "block_attnres", "haares",
                                           "wav", "full_attnres"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(FusedTraining, HasTheGradientsOfTheComposedPassFromSharedWeights) {
  Training fused(GetParam(), KernelChoice::kFused);
  const auto composed = fresh_model(small_spec(GetParam()), Precision::kFp32);
  composed->use_kernels(KernelChoice::kComposed);
  for (int64_t step = 0; step < 60; ++step) {
    if (step % 6 == 0) {
      for (size_t g = 0; g < composed->parameters().groups().size(); ++g) {
        const at::NoGradGuard no_grad;
        composed->parameters().groups()[g].value.copy_(
            fused.model().parameters().groups()[g].value);
      }
      const PassRecord ours = record_pass(fused.model(), training());
      const PassRecord expected = record_pass(*composed, training());
      EXPECT_NEAR(ours.sums.loss_sum, expected.sums.loss_sum, 1e-6 * expected.sums.loss_sum);
      for (const FlatGroup& group : composed->parameters().groups()) {
        const size_t g = group.decay == Decay::kYes ? 0 : 1;
        EXPECT_LE(relative(fused.model().parameters().groups()[g].grad, group.grad), 1e-5)
            << "step " << step;
      }
      fused.model().parameters().zero_grad();
    }
    static_cast<void>(fused.step(step));
  }
}

// Rounding grows as training goes on; what the kernels add to it is what any last bit does.
TEST_P(FusedTraining, StaysAsNearAsAChangeOfTheLastBitFor300Steps) {
  Training composed(GetParam(), KernelChoice::kComposed),
      moved(GetParam(), KernelChoice::kComposed), fused(GetParam(), KernelChoice::kFused);
  move_last_bits(moved.model());
  double first = 0.0, last = 0.0, apart_moved = 0.0, apart_fused = 0.0;
  for (int64_t step = 0; step < 300; ++step) {
    const double loss = composed.step(step);
    if (step == 0) first = loss;
    last = loss;
    apart_moved += std::pow(moved.step(step) - loss, 2.0);
    apart_fused += std::pow(fused.step(step) - loss, 2.0);
  }
  EXPECT_LT(last, 0.5 * first);  // it did learn
  // One draw of chance against another: within ten times.
  EXPECT_LE(std::sqrt(apart_fused), 10.0 * std::sqrt(apart_moved));
  RecordProperty("moved", std::to_string(std::sqrt(apart_moved / 300.0)));
  RecordProperty("fused", std::to_string(std::sqrt(apart_fused / 300.0)));
}

}  // namespace
}  // namespace wavroute
