// The learning rate and the update.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <optional>

#include "tests/model/small_model.h"
#include "train/adamw.h"
#include "train/schedule.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using enum ScheduleKind;

// 160 steps, 10 of them warm-up, 20 of decay: exact fractions.
double factor(ScheduleKind name, int64_t step) {
  return schedule_factor({name, 0.0625, 0.1, 0.125}, step, {160, 160});
}

TEST(Schedule, WarmsUpLinearlyAndReachesThePeakWithItsLastUpdate) {
  for (const ScheduleKind name : {kCosine, kWsd, kConstant}) {
    for (int64_t step = 0; step < 10; ++step) {
      EXPECT_DOUBLE_EQ(factor(name, step), static_cast<double>(step + 1) / 10.0) << to_string(name);
    }
  }
}

TEST(Schedule, CosineFallsFromThePeakToTheFinalFactor) {
  EXPECT_NEAR(factor(kCosine, 59), 0.1 + 0.9 * 0.75, 1e-14);  // a third of the way: cos = 1/2
  EXPECT_NEAR(factor(kCosine, 84), 0.1 + 0.9 * 0.50, 1e-14);  // half
  EXPECT_NEAR(factor(kCosine, 109), 0.1 + 0.9 * 0.25, 1e-14);
  EXPECT_NEAR(factor(kCosine, 159), 0.1, 1e-14);
  for (int64_t step = 10; step < 160; ++step) {
    EXPECT_LT(factor(kCosine, step), factor(kCosine, step - 1)) << step;
  }
}

TEST(Schedule, WsdStaysAtThePeakAndDecaysLinearlyAtTheEnd) {
  for (int64_t step = 9; step < 140; ++step) EXPECT_EQ(factor(kWsd, step), 1.0) << step;
  EXPECT_NEAR(factor(kWsd, 140), 0.1 + 0.9 * 19.0 / 20.0, 1e-14);
  EXPECT_NEAR(factor(kWsd, 149), 0.1 + 0.9 * 0.5, 1e-14);
  EXPECT_NEAR(factor(kWsd, 159), 0.1, 1e-14);
}

TEST(Schedule, ConstantStaysAtThePeak) {
  for (int64_t step = 9; step < 160; ++step) EXPECT_EQ(factor(kConstant, step), 1.0) << step;
}

TEST(Schedule, NeedsNoWarmUpAndNoDecay) {
  EXPECT_EQ(schedule_factor({kConstant, 0.0, 0.1, 0.2}, 0, {10, 10}), 1.0);
  EXPECT_EQ(schedule_factor({kWsd, 0.0, 0.1, 0.0}, 9, {10, 10}), 1.0);
  EXPECT_NEAR(schedule_factor({kCosine, 0.0, 0.0, 0.0}, 4, {10, 10}), 0.5, 1e-14);
  EXPECT_NEAR(schedule_factor({kCosine, 0.0, 0.25, 0.0}, 0, {1, 1}), 0.25, 1e-14);
}

// Steps [0, 240) of a plan for 160 that gets 240 at step `at`; nothing where that is refused.
std::optional<SchedulePlan> extended(ScheduleKind name, int64_t at) {
  try {
    return extend_plan({name, 0.0625, 0.1, 0.125}, {160, 160}, at, 240).plan;
  } catch (const UserError&) {
    return std::nullopt;
  }
}

TEST(Schedule, OfARunThatGetsMoreStepsChangesNoPastUpdate) {
  for (const ScheduleKind name : {kCosine, kWsd, kConstant}) {
    const ScheduleConfig schedule{name, 0.0625, 0.1, 0.125};
    for (int64_t at = 1; at <= 160; ++at) {
      const auto plan = extended(name, at);
      ASSERT_EQ(plan.has_value(), name != kWsd || at <= 140) << to_string(name) << at;
      for (int64_t step = 0; plan && step < at; ++step) {
        ASSERT_EQ(schedule_factor(schedule, step, *plan), factor(name, step))
            << to_string(name) << step;
      }
    }
  }
}

TEST(Schedule, KeepsTheLastLevelOfCosineAndConstantInLaterSteps) {
  for (const auto& [name, level] : {std::pair{kCosine, 0.1}, {kConstant, 1.0}}) {
    const SchedulePlan plan = *extended(name, 160);
    for (int64_t step = 159; step < 240; ++step) {
      EXPECT_NEAR(schedule_factor({name, 0.0625, 0.1, 0.125}, step, plan), level, 1e-14) << step;
    }
  }
}

TEST(Schedule, MovesTheDecayOfWsdToTheNewEnd) {
  const ScheduleConfig schedule{kWsd, 0.0625, 0.1, 0.125};
  const SchedulePlan plan = *extended(kWsd, 140);
  EXPECT_EQ(schedule_factor(schedule, 209, plan), 1.0);
  EXPECT_NEAR(schedule_factor(schedule, 210, plan), 0.1 + 0.9 * 29.0 / 30.0, 1e-14);
  EXPECT_NEAR(schedule_factor(schedule, 239, plan), 0.1, 1e-14);
}

TEST(Schedule, OfARunExtendedTwiceIsThatOfTheFirstPlan) {
  const ScheduleConfig schedule{kCosine, 0.0625, 0.1, 0.125};
  const SchedulePlan once = extend_plan(schedule, {160, 160}, 160, 200).plan;
  const SchedulePlan twice = extend_plan(schedule, once, 180, 400).plan;
  for (int64_t step = 0; step < 160; ++step) {
    EXPECT_EQ(schedule_factor(schedule, step, twice), factor(kCosine, step)) << step;
  }
  EXPECT_NEAR(schedule_factor(schedule, 399, twice), 0.1, 1e-14);
}

constexpr double kBeta1 = 0.9, kBeta2 = 0.95, kEps = 1e-3, kDecay = 0.1;

OptimizerConfig config() {
  OptimizerConfig config;
  config.betas = {kBeta1, kBeta2};
  config.eps = kEps;
  config.weight_decay = kDecay;
  return config;
}

// The formula of arXiv 1711.05101, one scalar at a time.
struct Scalar {
  double value, first = 0.0, second = 0.0;

  void update(double gradient, double lr, double decay, int t) {
    value -= lr * decay * value;
    first = kBeta1 * first + (1.0 - kBeta1) * gradient;
    second = kBeta2 * second + (1.0 - kBeta2) * gradient * gradient;
    const double corrected = first / (1.0 - std::pow(kBeta1, t));
    value -= lr * corrected / (std::sqrt(second / (1.0 - std::pow(kBeta2, t))) + kEps);
  }
};

TEST(AdamW, FollowsItsFormulaAndDecaysMatricesAlone) {
  ParameterTable table;
  Parameter& matrix = table.declare("matrix", {3, 5}, Decay::kYes, {0.0, 1.0});
  Parameter& vector = table.declare("vector", {7}, Decay::kNo, {0.0, 1.0});
  table.allocate(at::kDouble, at::kDouble, at::kCPU, 4);
  AdamW optimizer(table, config());
  const auto backend = ops::make_composed_backend(at::kCPU);
  const at::NoGradGuard no_grad;
  for (const auto& [parameter, decay] : {std::pair{&matrix, kDecay}, {&vector, 0.0}}) {
    std::vector<Scalar> expected;
    const at::Tensor start = parameter->value.flatten().clone();
    for (int64_t i = 0; i < start.numel(); ++i) expected.push_back({start[i].item<double>()});
    optimizer.set_updates(0);
    for (const auto& moments : {optimizer.first_moments(), optimizer.second_moments()}) {
      for (const at::Tensor& moment : moments) moment.zero_();
    }
    for (int t = 1; t <= 3; ++t) {
      const double lr = 0.1 / t;
      table.zero_grad();
      const at::Tensor gradient = (start - 0.3 * t).cos();
      parameter->value.mutable_grad().copy_(gradient.view(parameter->shape));
      optimizer.update(*backend, lr);
      EXPECT_EQ(optimizer.updates(), t);
      for (int64_t i = 0; i < start.numel(); ++i) {
        Scalar& scalar = expected[static_cast<size_t>(i)];
        scalar.update(gradient[i].item<double>(), lr, decay, t);
        EXPECT_NEAR(parameter->value.flatten()[i].item<double>(), scalar.value, 1e-12);
      }
    }
  }
}

TEST(AdamW, TakesABiasCorrectedFirstStepOfTheLearningRate) {
  // m / (1 - b1) = g and v / (1 - b2) = g^2: the first step is lr g / (|g| + eps).
  ParameterTable table;
  Parameter& vector = table.declare("vector", {2}, Decay::kNo, {1.0});
  table.allocate(at::kDouble, at::kDouble, at::kCPU, 4);
  AdamW optimizer(table, config());
  const auto backend = ops::make_composed_backend(at::kCPU);
  const at::NoGradGuard no_grad;
  vector.value.mutable_grad().copy_(at::tensor({3.0, -0.001}, at::kDouble));
  optimizer.update(*backend, 0.25);
  EXPECT_NEAR(vector.value[0].item<double>(), 1.0 - 0.25 * 3.0 / 3.001, 1e-12);
  EXPECT_NEAR(vector.value[1].item<double>(), 1.0 + 0.25 * 0.5, 1e-12);
}

TEST(AdamW, GoesOnFromTheUpdatesAndMomentsOfAnother) {
  for (const SchemeInfo& scheme : residual_schemes()) {
    const auto straight = scattered_model(small_spec(scheme.name), Precision::kFp32);
    const auto resumed = scattered_model(small_spec(scheme.name), Precision::kFp32);
    AdamW first(straight->parameters(), config()), second(resumed->parameters(), config());
    AdamW third(resumed->parameters(), config());
    for (int t = 0; t < 2; ++t) {
      static_cast<void>(record_pass(*straight, training()));
      first.update(straight->backend(), 0.01);
      static_cast<void>(record_pass(*resumed, training()));
      if (t == 0) {
        second.update(resumed->backend(), 0.01);
        continue;
      }
      for (size_t g = 0; g < 2; ++g) {
        third.first_moments()[g].copy_(second.first_moments()[g]);
        third.second_moments()[g].copy_(second.second_moments()[g]);
      }
      third.set_updates(second.updates());
      third.update(resumed->backend(), 0.01);
    }
    expect_equal(values_of(*resumed), values_of(*straight));
  }
}

// Such an eps is 0 as a float: a gradient that was always 0 would give 0 / 0.
TEST(AdamW, WithTheSmallestEpsLeavesWhatHasNoGradientAsItIs) {
  const auto composed = ops::make_composed_backend(at::kCPU), cpu = ops::make_cpu_backend();
  for (const auto& [storage, backend] : {std::pair{at::kDouble, composed.get()},
                                         {at::kFloat, composed.get()},
                                         {at::kFloat, cpu.get()}}) {
    ParameterTable table;
    Parameter& parameter = table.declare("p", {3}, Decay::kNo, {2.0});
    table.allocate(storage, storage, at::kCPU, 1);
    OptimizerConfig smallest = config();
    smallest.eps = 1e-60;
    AdamW optimizer(table, smallest);
    const at::NoGradGuard no_grad;
    table.zero_grad();
    optimizer.update(*backend, 0.1, 1.0);
    EXPECT_TRUE(at::equal(parameter.value, at::full({3}, 2.0, storage)));
  }
}

TEST(AdamW, LeavesTheGapsBetweenParametersAtZero) {
  const auto model = scattered_model(small_spec("wav"), Precision::kFp32);
  AdamW optimizer(model->parameters(), config());
  for (int t = 0; t < 3; ++t) {
    static_cast<void>(record_pass(*model, training()));
    optimizer.update(model->backend(), 0.01);
  }
  const at::NoGradGuard no_grad;
  for (size_t g = 0; g < 2; ++g) {
    const FlatGroup& group = model->parameters().groups()[g];
    for (const at::Tensor& flat :
         {group.value, group.grad, optimizer.first_moments()[g], optimizer.second_moments()[g]}) {
      at::Tensor rest = flat.clone();
      for (const Parameter& parameter : model->parameters().parameters()) {
        if (parameter.decay == group.decay) parameter.view(rest).zero_();
      }
      EXPECT_TRUE(rest.eq(0.0).all().item<bool>());
    }
  }
}

TEST(AdamW, RefreshesTheCopiesInTheComputeType) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kBf16);
  AdamW optimizer(model->parameters(), config());
  const at::Tensor before = model->embedding().compute.detach().clone();
  static_cast<void>(record_pass(*model, training()));
  optimizer.update(model->backend(), 0.05);
  for (const Parameter& parameter : model->parameters().parameters()) {
    EXPECT_TRUE(at::equal(parameter.compute.detach(),
                          parameter.value.detach().to(parameter.compute.scalar_type())));
  }
  EXPECT_FALSE(at::equal(model->embedding().compute.detach(), before));
}

TEST(GradientNorm, IsTheNormOverAllParameters) {
  const auto model = scattered_model(small_spec("wav"));
  double sum = 0.0;
  for (const auto& [name, gradient] : record_pass(*model, training()).gradients) {
    sum += gradient.square().sum().item<double>();
  }
  EXPECT_NEAR(gradient_norm(model->backend(), model->parameters()) / std::sqrt(sum), 1.0, 1e-12);
}

}  // namespace
}  // namespace wavroute
