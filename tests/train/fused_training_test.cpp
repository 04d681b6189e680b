// Training on our kernels against training on stock operators, in fp32.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/model/small_model.h"
#include "train/step.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kRows = 4, kContext = 9;

// One of three batches of random tokens.
Batch batch_at(int64_t step) {
  const at::Tensor ids = random_tokens(kRows, kContext + 1, "batch " + std::to_string(step % 3));
  return {ids.narrow(1, 0, kContext).contiguous(), ids.narrow(1, 1, kContext).contiguous()};
}

constexpr int64_t kMicroRows = 2;
constexpr double kBeta1 = 0.9;

// Tensors of a flat buffer per group, by checkpoint name, in double.
NamedTensors named(const Decoder& model, const std::vector<at::Tensor>& flat) {
  NamedTensors result;
  for (const Parameter& parameter : model.parameters().parameters()) {
    const at::Tensor whole = parameter.view(flat[parameter.decay == Decay::kYes ? 0 : 1]);
    for (const ParameterSlice& slice : parameter.slices) {
      result[slice.name] = parameter.rows(slice, whole).to(at::kDouble, false, /*copy=*/true);
    }
  }
  return result;
}

class Training {
 public:
  Training(const std::string& scheme, KernelChoice kernels)
      : model_(fresh_model(small_spec(scheme), Precision::kFp32)),
        optimizer_(model_->parameters(), {}) {
    model_->use_kernels(kernels);
  }

  // A step in micro-batches, clipped as it nearly always is here.
  void step(int64_t number) {
    const Pass pass{true, 5, {number + 100, 1000}};
    const TrainStepPlan plan{kMicroRows, Recompute::kNone, 1.0};
    ASSERT_TRUE(train_step(*model_, optimizer_, batch_at(number), plan, pass, 3e-3).is_finite());
  }

  // Weights, moments and updates of another.
  void copy_from(const Training& other) {
    const at::NoGradGuard no_grad;
    for (size_t g = 0; g < 2; ++g) {
      model_->parameters().groups()[g].value.copy_(other.model_->parameters().groups()[g].value);
      optimizer_.first_moments()[g].copy_(other.optimizer_.first_moments()[g]);
      optimizer_.second_moments()[g].copy_(other.optimizer_.second_moments()[g]);
    }
    optimizer_.set_updates(other.optimizer_.updates());
  }

  [[nodiscard]] NamedTensors weights() const {
    std::vector<at::Tensor> flat;
    for (const FlatGroup& group : model_->parameters().groups()) flat.push_back(group.value);
    return named(*model_, flat);
  }
  [[nodiscard]] NamedTensors first_moments() const {
    return named(*model_, optimizer_.first_moments());
  }

 private:
  std::unique_ptr<Decoder> model_;
  AdamW optimizer_;
};

// after - decay * before, by name.
NamedTensors change(const NamedTensors& after, const NamedTensors& before, double decay) {
  NamedTensors result;
  for (const auto& [name, tensor] : after) result[name] = tensor - decay * before.at(name);
  return result;
}

void expect_near(const NamedTensors& actual, const NamedTensors& expected, double bound,
                 const std::string& what) {
  // A bias of one or two numbers is a sum of terms that nearly cancel: seen up to 1.1 times the
  // bound under libtorch's products for SSE4.1. One per cent is still twice what is allowed.
  constexpr int64_t kFew = 8;
  constexpr double kOfFew = 5.0;
  for (const auto& [name, tensor] : expected) {
    EXPECT_LE(error_of(actual.at(name), tensor), tensor.numel() <= kFew ? kOfFew * bound : bound)
        << what << " of " << name;
  }
}

class FusedTraining : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Schemes, FusedTraining,
                         ::testing::Values("prenorm", "layerscale", "block_attnres", "haares",
                                           "wav", "full_attnres"),
                         [](const auto& info) { return std::string(info.param); });

// Every tensor by itself: a gradient that is wrong by one per cent exceeds the bound ten times,
// however small the tensor is compared with the others. The gradients are those that the update
// saw, out of the first moments: m' - b1 m = (1 - b1) g.
TEST_P(FusedTraining, TakesTheStepOfTheComposedOneFromSharedState) {
  constexpr double kGradientBound = 1e-3, kUpdateBound = 5e-3;
  Training fused(GetParam(), KernelChoice::kFused), composed(GetParam(), KernelChoice::kComposed);
  for (int64_t step = 0; step < 25; ++step) {
    if (step % 8 != 0) {
      fused.step(step);
      continue;
    }
    composed.copy_from(fused);
    const NamedTensors weights = fused.weights(), moments = fused.first_moments();
    fused.step(step);
    composed.step(step);
    const std::string place = " at step " + std::to_string(step);
    expect_near(change(fused.first_moments(), moments, kBeta1),
                change(composed.first_moments(), moments, kBeta1), kGradientBound,
                "gradient" + place);
    expect_near(change(fused.weights(), weights, 1.0), change(composed.weights(), weights, 1.0),
                kUpdateBound, "update" + place);
  }
}

}  // namespace
}  // namespace wavroute
