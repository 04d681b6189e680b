// The memory plan against the memory of the passes.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "model/cost.h"
#include "ops/arena.h"
#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kRows = 2;
constexpr double kTolerance = 0.1;

TEST(MemoryPlan, GrowsWithTheMicroBatchAndShrinksWithRecomputation) {
  for (const SchemeInfo& scheme : residual_schemes()) {
    const auto model = fresh_model(small_spec(scheme.name));
    for (const auto backend : {ops::BackendKind::kCpu, ops::BackendKind::kComposed}) {
      TrainingShape shape{Precision::kBf16, Recompute::kNone, backend};
      const auto plan = [&](Recompute recompute, int64_t rows) {
        shape.recompute = recompute;
        shape.micro_batch = rows;
        return plan_memory(model->spec(), model->residual(), model->parameters().count(), shape);
      };
      for (int64_t rows = 1; rows < 64; rows *= 2) {
        EXPECT_GT(plan(Recompute::kNone, 2 * rows).total(), plan(Recompute::kNone, rows).total());
        EXPECT_EQ(plan(Recompute::kNone, 2 * rows).parameters,
                  plan(Recompute::kNone, rows).parameters);
      }
      EXPECT_LE(plan(Recompute::kLayer, 8).total(), plan(Recompute::kNone, 8).total());
      const auto fits = [&](double available) {
        shape.recompute = Recompute::kNone;
        return largest_micro_batch(model->spec(), model->residual(), model->parameters().count(),
                                   shape, 12, available);
      };
      EXPECT_EQ(fits(1e18), 12);
      EXPECT_EQ(fits(plan(Recompute::kNone, 6).total()), 6);
      EXPECT_EQ(fits(plan(Recompute::kNone, 5).total()), 4);  // the divisors of 12
      EXPECT_EQ(fits(plan(Recompute::kNone, 1).total() - 1.0), 0);
    }
  }
}

// 12 layers over a vocabulary of 64, so that what a pass keeps is most of the memory, and enough
// tokens that the arena's gaps matter little.
DecoderSpec planned_spec(const std::string& scheme) {
  DecoderSpec spec = small_spec(scheme, {}, 12);
  spec.model.width = 64;
  spec.model.heads = 4;
  spec.model.kv_heads = 2;
  spec.model.hidden = 192;
  spec.model.context = 128;
  spec.vocab_size = 64;
  return spec;
}

const ops::Arena& arena_of(const Decoder& model) {
  return dynamic_cast<const ops::Arena&>(model.backend().memory());
}

class MemoryPlanOnKernels : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Schemes, MemoryPlanOnKernels,
                         ::testing::Values("prenorm", "layerscale", "full_attnres", "block_attnres",
                                           "haares", "wav"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(MemoryPlanOnKernels, IsWhatATrainingPassTakes) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock, Recompute::kLayer}) {
      const auto model = fresh_model(planned_spec(GetParam()), precision);
      model->use_kernels(KernelChoice::kFused);
      const TrainingShape shape{precision, recompute, ops::BackendKind::kCpu, kRows};
      const MemoryPlan plan =
          plan_memory(model->spec(), model->residual(), model->parameters().count(), shape);
      const at::Tensor ids = random_tokens(kRows, model->spec().model.context);
      PassOptions options;
      options.pass = training();
      options.recompute = recompute;
      for (int pass = 0; pass < 2; ++pass) {
        static_cast<void>(training_pass(*model, ids, ids, options));
      }
      // The embedding, and what is flushed into a snapshot, are libtorch's.
      const auto taken = static_cast<double>(arena_of(*model).bytes());
      EXPECT_NEAR(plan.activations / taken, 1.0, kTolerance)
          << to_string(precision) << " recompute " << static_cast<int>(recompute) << ": planned "
          << plan.activations << ", taken " << taken;
    }
  }
}

TEST_P(MemoryPlanOnKernels, KnowsWhatAnEvaluationAddsToIt) {
  const auto model = fresh_model(planned_spec(GetParam()), Precision::kFp32);
  model->use_kernels(KernelChoice::kFused);
  TrainingShape shape{Precision::kFp32, Recompute::kNone, ops::BackendKind::kCpu, kRows, 3 * kRows};
  const auto planned = [&] {
    return plan_memory(model->spec(), model->residual(), model->parameters().count(), shape)
        .evaluation;
  };
  const double all = planned();
  // The logits, and the pass for the routing map, are of stock operators.
  shape.backend = ops::BackendKind::kComposed;
  const double stock = planned();
  const at::Tensor ids = random_tokens(3 * kRows, model->spec().model.context);
  static_cast<void>(model->forward(ids, {}));
  const auto taken = static_cast<double>(arena_of(*model).bytes());
  EXPECT_NEAR((all - stock) / taken, 1.0, kTolerance) << taken;
}

}  // namespace
}  // namespace wavroute
