// Training steps whose numbers stay on the device: on the emulator, where a recording is a tape, or
// on a GPU.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/model/small_model.h"
#include "tests/ops/tested_backend.h"
#include "tests/temporary_folder.h"
#include "tests/train/small_run.h"
#include "train/backend_words.h"
#include "train/recorded_stepper.h"
#include "train/trainer.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using ::testing::HasSubstr;

constexpr int64_t kUnseen = 16;  // a token that good batches lack

Batch batch_of_step(const DecoderSpec& spec, int64_t step) {
  const std::string name = std::to_string(step);
  return {random_tokens(3, spec.model.context, "ids" + name).remainder(kUnseen),
          random_tokens(3, spec.model.context, "next" + name).remainder(kUnseen)};
}
Pass pass_of_step(int64_t step) { return {true, 5, {step, 40}}; }  // gates open at step 4

// A model that is trained step by step.
struct Training {
  explicit Training(const DecoderSpec& spec)
      : model(scattered_model(spec, Precision::kFp32, ops::tested_device())),
        optimizer(model->parameters(), {}) {
    model->use_backend(ops::make_tested_backend());
  }
  std::unique_ptr<Decoder> model;
  AdamW optimizer;
  TrainStepPlan plan{2, Recompute::kNone, 1.0};  // two micro-batches of unlike size
};

class RecordedSteps : public ::testing::TestWithParam<SchemeCase> {};
INSTANTIATE_TEST_SUITE_P(
    Registry, RecordedSteps,
    ::testing::Values(SchemeCase{"prenorm", "prenorm", {}}, SchemeCase{"wav", "wav", {}},
                      SchemeCase{"gated", "gated", {}}, SchemeCase{"act", "act", {}, 2},
                      SchemeCase{"denseformer_dilated",
                                 "denseformer",
                                 {{"dilation", int64_t{2}}, {"period", int64_t{3}}},
                                 6},
                      SchemeCase{"mhc_lite", "mhc_lite", {}, 2},
                      SchemeCase{"layerdrop", "layerdrop", {{"p", 0.5}}, 2}),
    [](const auto& info) { return info.param.label; });

// The host is a step behind with reading the results.
TEST_P(RecordedSteps, AreThoseOfTheHostBitForBit) {
  const DecoderSpec spec = small_spec(GetParam());
  Training direct(spec), recorded(spec);
  RecordedStepper stepper(*recorded.model, recorded.optimizer, recorded.plan);
  std::vector<TrainStepResult> expected, actual;
  constexpr int64_t kSteps = 7;
  for (int64_t step = 0; step < kSteps; ++step) {
    const double lr = 0.01 * static_cast<double>(step + 1);
    const Batch batch = batch_of_step(spec, step);
    expected.push_back(
        train_step(*direct.model, direct.optimizer, batch, direct.plan, pass_of_step(step), lr));
    stepper.start(batch, pass_of_step(step), lr);
    if (step > 0) actual.push_back(stepper.finish());
  }
  actual.push_back(stepper.finish());
  EXPECT_EQ(stepper.take_trouble(), "");
  const std::string& scheme = spec.scheme;
  // Of gated the gradients' last bits differ on the tape; from where is not known.
  const double rounding = scheme == "gated" ? 1e-6 : 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(actual[i].loss, expected[i].loss, 1e-12 + rounding);
    EXPECT_NEAR(actual[i].auxiliary, expected[i].auxiliary, 1e-7);
    EXPECT_NEAR(actual[i].mean_depth, expected[i].mean_depth, 1e-6);
    EXPECT_NEAR(actual[i].grad_norm, expected[i].grad_norm, 1e-12 + rounding);
  }
  expect_equal(values_of(*recorded.model), values_of(*direct.model), 10 * rounding);
  EXPECT_EQ(recorded.optimizer.updates(), kSteps);
  // Of gated: with frozen gates, and with open ones. Of layerdrop: a set of layers each.
  if (scheme == "layerdrop") {
    EXPECT_GT(stepper.recordings(), 1);
  } else {
    EXPECT_EQ(stepper.recordings(), scheme == "gated" ? 2 : 1);
  }
}

// Every scheme on a GPU; on the emulator a few steps of a few.
std::vector<SchemeCase> compared_schemes() {
  if (ops::tested_device().is_cuda()) return scheme_cases();
  return {{"prenorm", "prenorm", {}}, {"wav", "wav", {}}};
}
class Losses : public ::testing::TestWithParam<SchemeCase> {};
INSTANTIATE_TEST_SUITE_P(Registry, Losses, ::testing::ValuesIn(compared_schemes()),
                         [](const auto& info) { return info.param.label; });

TEST_P(Losses, AreThoseOfTheCpu) {
  const DecoderSpec spec = small_spec(GetParam());
  const int64_t steps = ops::tested_device().is_cuda() ? 20 : 4;
  for (const auto& [precision, tolerance] :
       {std::pair{Precision::kFp32, 1e-5}, {Precision::kBf16, 2e-3}}) {
    const auto cpu = fresh_model(spec, precision);
    cpu->use_kernels(KernelChoice::kFused);
    const auto tested = fresh_model(spec, precision, 1, ops::tested_device());
    tested->use_backend(ops::make_tested_backend());
    AdamW cpu_optimizer(cpu->parameters(), {}), optimizer(tested->parameters(), {});
    const TrainStepPlan plan{3, Recompute::kNone, 1.0};
    RecordedStepper stepper(*tested, optimizer, plan);
    for (int64_t step = 0; step < steps; ++step) {
      const Batch batch = batch_of_step(spec, step);
      const double expected =
          train_step(*cpu, cpu_optimizer, batch, plan, pass_of_step(step), 1e-3).loss;
      stepper.start(batch, pass_of_step(step), 1e-3);
      EXPECT_NEAR(stepper.finish().loss, expected, tolerance * expected) << "step " << step;
    }
  }
}

// A step whose loss is not finite, and the one that was started after it.
TEST(RecordedStep, ThatIsNotFiniteChangesNothingNorDoThoseAfterIt) {
  for (const char* scheme : {"prenorm", "wav"}) {
    const DecoderSpec spec = small_spec(scheme);
    Training training(spec);
    {
      const at::NoGradGuard no_grad;
      training.model->embedding().value[kUnseen].fill_(std::numeric_limits<float>::quiet_NaN());
    }
    RecordedStepper stepper(*training.model, training.optimizer, training.plan);
    for (int64_t step = 0; step < 3; ++step) {
      stepper.start(batch_of_step(spec, step), pass_of_step(step), 0.01);
      EXPECT_TRUE(stepper.finish().is_finite());
    }
    NamedTensors good = values_of(*training.model);
    Batch bad = batch_of_step(spec, 3);
    bad.inputs[1][4] = kUnseen;
    stepper.start(bad, pass_of_step(3), 0.01);
    stepper.start(batch_of_step(spec, 4), pass_of_step(4), 0.01);
    EXPECT_FALSE(stepper.finish().is_finite());
    static_cast<void>(stepper.finish());
    NamedTensors now = values_of(*training.model);
    for (NamedTensors* values : {&good, &now}) {
      for (auto& [name, value] : *values) value.nan_to_num_(7.0);  // NaN differs from itself
    }
    expect_equal(now, good);
    EXPECT_EQ(training.optimizer.updates(), 3);
    for (const at::Tensor& moments : training.optimizer.first_moments()) {
      EXPECT_TRUE(moments.isfinite().all().item<bool>());
    }
  }
}

TEST(RecordedStep, RefusesTokensBeyondTheVocabulary) {
  const DecoderSpec spec = small_spec("prenorm");
  Training training(spec);
  RecordedStepper stepper(*training.model, training.optimizer, training.plan);
  Batch batch = batch_of_step(spec, 0);
  batch.targets[0][0] = spec.vocab_size;
  EXPECT_THROW(stepper.start(batch, pass_of_step(0), 0.01), UserError);
}

// A run folder of a training whose results are read a step later.
class RecordedRun : public ::testing::Test {
 protected:
  RecordedRun() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i * i % 17);
    put(folder_ / "train.txt", text);
    put(folder_ / "valid.txt", text.substr(0, 40));
    config_ = small_run(folder_.path(), "wav", /*steps=*/7);
    config_.train.eval_every = 4;
    config_.train.save_every = 4;
  }

  // On the stock of the CPU, or recorded on the back end that is tested.
  bool run(const std::string& name, bool recorded, double lr = 0.01) {
    config_.optimizer.lr = lr;
    const bool on_gpu = recorded && ops::tested_device().is_cuda();
    config_.train.device = on_gpu ? DeviceKind::kCuda : DeviceKind::kCpu;
    const RunPaths paths{folder_ / name};
    std::filesystem::create_directories(paths.root);
    Session session = open_session(config_);
    if (recorded) session.model->use_backend(ops::make_tested_backend());
    Console console(/*quiet=*/true);
    console.open_log(paths.log());
    return Trainer(session, paths, console).run();
  }
  [[nodiscard]] std::vector<nlohmann::json> rows(const std::string& name) const {
    std::vector<nlohmann::json> rows;
    std::istringstream lines(get(folder_ / name / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
  }

  TemporaryFolder folder_;
  Config config_;
};

TEST_F(RecordedRun, WritesTheRowsOfADirectOne) {
  ASSERT_TRUE(run("cpu", false));
  ASSERT_TRUE(run("recorded", true));
  const auto expected = rows("cpu"), actual = rows("recorded");
  ASSERT_EQ(actual.size(), expected.size());
  EXPECT_EQ(expected.size(), 9);  // 7 steps, 2 evaluations
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].at("step"), expected[i].at("step"));
    for (const char* key : {"loss", "val_loss", "lr", "grad_norm"}) {
      ASSERT_EQ(actual[i].contains(key), expected[i].contains(key)) << key;
      if (!expected[i].contains(key)) continue;
      const auto value = expected[i].at(key).get<double>();
      EXPECT_NEAR(actual[i].at(key).get<double>(), value, 1e-4 * value) << key << " of row " << i;
    }
  }
}

TEST_F(RecordedRun, SaysWhatRunsOnStockOperators) {
  config_.train.steps = 1;
  ASSERT_TRUE(run("recorded", true));
  EXPECT_THAT(
      get(folder_ / "recorded" / "train.log"),
      HasSubstr("back end cuda (routing maps, layer sizes, layer programs on stock operators)"));
}

TEST(BackendWords, SayWhyEverythingRunsOnStockOperatorsOnAGpu) {
  const at::Device gpu(at::kCUDA, 0);
  const auto composed = ops::make_composed_backend(at::kCPU);
  EXPECT_EQ(backend_words(*composed, at::kCPU, Precision::kFp64), "composed");
  EXPECT_EQ(backend_words(*composed, gpu, Precision::kFp64),
            "composed (there are no kernels for fp64)");
  const std::string why = ops::why_no_cuda_backend();
  EXPECT_EQ(backend_words(*composed, gpu, Precision::kFp32),
            why.empty() ? "composed" : "composed (" + why + ")");
}

TEST_F(RecordedRun, StopsWithTheNumberOfTheStepThatIsNotFinite) {
  config_.optimizer.clip = 0.0;
  config_.schedule.warmup = 0.0;
  try {
    static_cast<void>(run("recorded", true, 1e30));
    FAIL() << "it went on";
  } catch (const Failure& error) {
    EXPECT_THAT(error.what(), HasSubstr("at step 2"));
  }
  EXPECT_EQ(rows("recorded").size(), 1);
  const auto summary = nlohmann::json::parse(get(folder_ / "recorded" / "summary.json"));
  EXPECT_EQ(summary.at("status"), "diverged");
}

}  // namespace
}  // namespace wavroute
