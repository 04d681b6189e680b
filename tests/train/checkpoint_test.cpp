// Stopping and continuing.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "config/end_tokens.h"
#include "io/checkpoint.h"
#include "tests/data/bpe_json.h"
#include "tests/model/small_model.h"
#include "tests/temporary_folder.h"
#include "train/checkpointing.h"
#include "train/step.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kSteps = 4, kContext = 9;

// A model in training: 4 steps, the gates frozen in the first 2.
struct TrainingRun {
  std::unique_ptr<Decoder> model;
  AdamW optimizer;
  RunState state{{0, kSteps}, "", "", 0, {}, {}};

  TrainingRun(const SchemeCase& c, uint64_t seed, Precision precision = Precision::kFp32)
      : model(fresh_model(spec_of(c), precision, seed)), optimizer(model->parameters(), {}) {}

  static DecoderSpec spec_of(const SchemeCase& c) {
    DecoderSpec spec = small_spec(c);
    if (c.scheme == "gated") spec.options["freeze"] = 0.5;
    return spec;
  }

  void train(int64_t steps) {
    for (int64_t s = 0; s < steps; ++s) {
      const std::string name = "step" + std::to_string(state.progress.step);
      const at::Tensor window = random_tokens(2, kContext + 1, name);
      const Batch batch{window.narrow(1, 0, kContext).contiguous(),
                        window.narrow(1, 1, kContext).contiguous()};
      const TrainStepPlan plan{1, Recompute::kNone, 1.0};
      const Pass pass{true, 5, state.progress};
      ASSERT_TRUE(train_step(*model, optimizer, batch, plan, pass, 0.01).is_finite());
      ++state.progress.step;
      state.tokens += 2 * kContext;
    }
  }
  std::filesystem::path save(const TemporaryFolder& run) const {
    return save_checkpoint(run.path(), *model, optimizer, *make_bytes_tokenizer(), state, 9);
  }
};

class CheckpointOfEveryScheme : public ::testing::TestWithParam<SchemeCase> {};

INSTANTIATE_TEST_SUITE_P(Registry, CheckpointOfEveryScheme, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

// Trains 4 steps, and 2 and 2 with a checkpoint between: every byte must be the same.
void expect_same_after_a_stop(const SchemeCase& c, Precision precision) {
  const TemporaryFolder straight_folder, stopped_folder;
  TrainingRun straight(c, 1, precision);
  straight.train(4);
  const auto expected = straight.save(straight_folder);

  TrainingRun stopped(c, 1, precision);
  stopped.train(2);
  const auto checkpoint = stopped.save(stopped_folder);
  TrainingRun resumed(c, 2, precision);  // none of its own initial values may remain
  resumed.state = load_checkpoint(checkpoint, *resumed.model, resumed.optimizer);
  EXPECT_EQ(resumed.state.progress.step, 2);
  EXPECT_EQ(resumed.state.progress.steps, kSteps);
  EXPECT_EQ(resumed.state.tokens, 4 * kContext);
  EXPECT_EQ(resumed.optimizer.updates(), 2);
  resumed.train(2);
  const auto actual = resumed.save(stopped_folder);

  expect_equal(values_of(*resumed.model), values_of(*straight.model));
  for (size_t g = 0; g < 2; ++g) {
    EXPECT_TRUE(
        at::equal(resumed.optimizer.first_moments()[g], straight.optimizer.first_moments()[g]));
    EXPECT_TRUE(
        at::equal(resumed.optimizer.second_moments()[g], straight.optimizer.second_moments()[g]));
  }
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "config.json",
                           "tokenizer.json", "state.json"}) {
    ASSERT_FALSE(get(expected / file).empty()) << file;
    EXPECT_EQ(get(actual / file), get(expected / file)) << file;
  }
}

TEST_P(CheckpointOfEveryScheme, GoesOnBitForBit) {
  expect_same_after_a_stop(GetParam(), Precision::kFp32);
}

SchemeCase plain(const std::string& scheme) { return {scheme, scheme, {}, 4}; }

TEST(Checkpoint, InBf16GoesOnBitForBit) {
  expect_same_after_a_stop(plain("wav"), Precision::kBf16);
}

TEST(Checkpoint, ValuesThatAreNotFiniteAreFoundInParametersAndMoments) {
  const at::NoGradGuard no_grad;
  TrainingRun run(plain("wav"), 1);
  EXPECT_EQ(non_finite_part(*run.model, run.optimizer), std::nullopt);
  for (auto* moments : {&run.optimizer.first_moments(), &run.optimizer.second_moments()}) {
    for (const at::Tensor& group : *moments) {
      const at::Tensor last = group.narrow(0, group.numel() - 1, 1);
      last.fill_(std::numeric_limits<float>::infinity());
      EXPECT_EQ(non_finite_part(*run.model, run.optimizer), "moments");
      last.zero_();
    }
  }
  run.model->embedding().value[3].fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(non_finite_part(*run.model, run.optimizer), "parameters");
}

TEST(Checkpoint, HoldsWhatItsStateSays) {
  const TemporaryFolder folder;
  TrainingRun run(plain("wav"), 1);
  run.train(1);
  run.state.val_loss = 2.5;
  run.state.bits_per_byte = 3.5;
  const auto path = run.save(folder);
  EXPECT_EQ(verify_checkpoint(path), std::nullopt);
  const nlohmann::json state = read_state(path);
  EXPECT_EQ(state.at("step"), 1);
  EXPECT_EQ(state.at("steps"), kSteps);
  EXPECT_EQ(state.at("tokens"), 2 * kContext);
  EXPECT_EQ(state.at("updates"), 1);
  EXPECT_EQ(state.at("val_loss"), 2.5);
  EXPECT_EQ(state.at("bits_per_byte"), 3.5);
  EXPECT_EQ(progress_of(path).step, 1);
  EXPECT_EQ(progress_of(path).steps, kSteps);
}

TEST(Checkpoint, KnowsTheStepsThatWerePlannedAtFirst) {
  const TemporaryFolder folder;
  TrainingRun run(plain("wav"), 1);
  run.train(1);
  run.state.run_steps = 9;
  const auto path = run.save(folder);
  const RunState state = load_checkpoint(path, *run.model, run.optimizer);
  EXPECT_EQ(state.progress.steps, kSteps);
  EXPECT_EQ(state.run_steps, 9);
  // A state from before "schedule_steps", in the format of that time: its steps are the plan.
  nlohmann::json older = read_state(path);
  for (const char* key : {"schedule_steps", "format", "state_sha256"}) older.erase(key);
  older["steps"] = 7;
  put(path / "state.json", older.dump());
  EXPECT_EQ(progress_of(path).steps, 7);
}

TEST(Checkpoint, OfFrozenGatesSaysSo) {
  const TemporaryFolder folder;
  TrainingRun run(plain("gated"), 1);
  const auto frozen = [&] {
    return nlohmann::json::parse(get(run.save(folder) / "config.json")).at("residual").at("frozen");
  };
  run.train(1);
  EXPECT_EQ(frozen(), true);
  run.train(1);
  EXPECT_EQ(frozen(), false);
}

TEST(Checkpoint, OfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  TrainingRun wav(plain("wav"), 1);
  wav.train(1);
  const auto path = wav.save(folder);
  for (const SchemeCase& other :
       {plain("prenorm"), plain("haares"), SchemeCase{"wav", "wav", {}, 5}}) {
    TrainingRun run(other, 1);
    EXPECT_THROW(static_cast<void>(load_checkpoint(path, *run.model, run.optimizer)), UserError)
        << other.label;
  }
}

TEST(Checkpoint, WithoutMomentsOrCountsIsRefused) {
  TrainingRun run(plain("prenorm"), 1);
  run.train(1);
  for (const char* file : {"optimizer.safetensors", "model.safetensors", "state.json"}) {
    const TemporaryFolder folder;
    const auto path = run.save(folder);
    std::filesystem::remove(path / file);
    EXPECT_THROW(static_cast<void>(load_checkpoint(path, *run.model, run.optimizer)), UserError)
        << file;
  }
  for (const char* key : {"updates", "tokens", "step", "steps", "train_sha256", "valid_sha256"}) {
    const TemporaryFolder folder;
    const auto path = run.save(folder);
    nlohmann::json state = read_state(path);
    // As a version before the checksum wrote it: otherwise the checksum would report it first.
    state.erase("format");
    state.erase("state_sha256");
    for (const auto& change :
         {std::function([&] { state[key] = "1"; }), std::function([&] { state.erase(key); })}) {
      change();
      put(path / "state.json", state.dump());
      const std::string message = message_of<UserError>(
          [&] { static_cast<void>(load_checkpoint(path, *run.model, run.optimizer)); });
      EXPECT_THAT(message, ::testing::AllOf(::testing::HasSubstr(std::string("'") + key + "'"),
                                            ::testing::HasSubstr(path.string())));
    }
  }
}

TEST(Checkpoint, WithoutTheFormatAndChecksumOfTodayIsRead) {
  const TemporaryFolder folder;
  TrainingRun run(plain("prenorm"), 1);
  run.train(1);
  const auto path = run.save(folder);
  nlohmann::json state = read_state(path);
  for (const char* key : {"format", "state_sha256"}) state.erase(key);
  put(path / "state.json", state.dump(2));
  TrainingRun resumed(plain("prenorm"), 2);
  resumed.state = load_checkpoint(path, *resumed.model, resumed.optimizer);
  EXPECT_EQ(resumed.state.progress.step, 1);
  expect_equal(values_of(*resumed.model), values_of(*run.model));
}

TEST(Checkpoint, OfTokensThatAreNotThoseOfItsStepsIsRefused) {
  const RunState state{{3, kSteps}, "", "", 60, {}, {}};
  EXPECT_NO_THROW(check_tokens("folder", state, 20));
  for (const int64_t per_step : {10, 19, 30}) {
    EXPECT_THAT(message_of<UserError>([&] { check_tokens("folder", state, per_step); }),
                ::testing::HasSubstr("'tokens'"));
  }
}

TEST(Checkpoint, NamesTheTokenThatEndsATextOfItsTokenizer) {
  const TemporaryFolder folder;
  const TrainingRun run(plain("prenorm"), 1);
  const auto end_of = [&](const Tokenizer& tokenizer) {
    const auto path =
        save_checkpoint(folder.path(), *run.model, run.optimizer, tokenizer, run.state, 9);
    return read_end_tokens(path);
  };
  EXPECT_THAT(end_of(*make_bytes_tokenizer()), ::testing::IsEmpty());
  const auto pairs = tokenizer_from_json(byte_level_tokenizer({}).dump(), "t.json");
  EXPECT_THAT(end_of(*pairs), ::testing::ElementsAre(256));  // behind the 256 bytes
}

TEST(Progress, OfAFolderWithoutAStateIsThatOfNoTraining) {
  const TemporaryFolder folder;
  EXPECT_EQ(progress_of(folder.path()).step, 0);
  EXPECT_EQ(progress_of(folder.path()).steps, 0);
}

}  // namespace
}  // namespace wavroute
