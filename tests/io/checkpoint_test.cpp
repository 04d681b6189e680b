#include "io/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "io/file.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::get;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::names_in;
using ::testing::Optional;
using testing::put;
using testing::TemporaryFolder;
using ::testing::UnorderedElementsAre;

fs::path make_checkpoint(const fs::path& run, int64_t step, const json& val_loss = nullptr,
                         const std::string& model = "weights") {
  CheckpointWriter writer(run, step);
  testing::put_checkpoint_files(writer, model);
  return writer.finish({{"val_loss", val_loss}});
}

std::vector<int64_t> steps_in(const fs::path& run) {
  std::vector<int64_t> steps;
  for (const Checkpoint& checkpoint : list_checkpoints(run)) steps.push_back(checkpoint.step);
  return steps;
}

TEST(CheckpointWriter, PutsTheFilesTheirSizesAndChecksumsInPlace) {
  const TemporaryFolder run;
  fs::path path;
  {
    CheckpointWriter writer(run.path(), 12);
    writer.write("config.json", "abc");
    const std::string model = "0123";
    writer.add_digest(
        "model.safetensors",
        write_safetensors(writer.folder() / "model.safetensors",
                          {{"x", Dtype::kF32, {1}, std::as_bytes(std::span(model))}}));
    put(writer.folder() / "optimizer.safetensors", "");  // whose digest was not recorded
    writer.write("tokenizer.json", "{}");
    EXPECT_THAT(list_checkpoints(run.path()), IsEmpty());
    path = writer.finish({{"val_loss", 1.5}});
  }
  EXPECT_EQ(path, run / "checkpoints/step_12");
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step_12"));
  EXPECT_THAT(names_in(path),
              UnorderedElementsAre("config.json", "model.safetensors", "optimizer.safetensors",
                                   "tokenizer.json", "state.json"));
  const json state = json::parse(get(path / "state.json"));
  EXPECT_EQ(state["step"], 12);
  EXPECT_EQ(state["val_loss"], 1.5);
  // The digests of "abc" and of nothing stand in FIPS 180-4.
  EXPECT_EQ(state["files"]["config.json"],
            (json{{"bytes", 3},
                  {"sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}));
  EXPECT_EQ(state["files"]["optimizer.safetensors"]["sha256"],
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(state["files"].size(), 4U);
  EXPECT_EQ(verify_checkpoint(path), std::nullopt);
}

TEST(CheckpointWriter, WithoutFinishNothingIsLeft) {
  const TemporaryFolder run;
  {
    CheckpointWriter writer(run.path(), 1);
    writer.write("config.json", "{}");
  }
  EXPECT_THAT(names_in(run / "checkpoints"), IsEmpty());
}

TEST(CheckpointWriter, ReplacesAnOlderOneOfTheSameStep) {
  const TemporaryFolder run;
  const fs::path path = make_checkpoint(run.path(), 3, nullptr, "old");
  put(path / "stray", "");
  make_checkpoint(run.path(), 3, nullptr, "new");
  EXPECT_EQ(get(path / "model.safetensors"), "new");
  EXPECT_FALSE(fs::exists(path / "stray"));
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step_3"));
}

TEST(CheckpointWriter, NoticesAFileThatIsNotWhatItsWriterSaid) {
  const TemporaryFolder run;
  CheckpointWriter writer(run.path(), 3);
  writer.write("config.json", "{}");
  fs::resize_file(writer.folder() / "config.json", 1);
  EXPECT_THAT(message_of<Failure>([&] { writer.finish({}); }),
              HasSubstr("expected 2 bytes as written, given 1"));
  EXPECT_THAT(list_checkpoints(run.path()), IsEmpty());
}

TEST(ListCheckpoints, SortsByNumberAndSkipsOtherNames) {
  const TemporaryFolder run;
  EXPECT_THAT(steps_in(run.path()), IsEmpty());
  for (const char* name :
       {"step_100", "step_20", "step_3", "step_", "step_007", "step_4x", "step_-1", ".tmp-step_5-1",
        "later-step_6", "damaged-step_9.2", "step_99999999999999999999"}) {
    fs::create_directories(run / "checkpoints" / name);
  }
  put(run / "checkpoints/step_8", "a file");
  EXPECT_THAT(steps_in(run.path()), ElementsAre(3, 20, 100));
}

TEST(VerifyCheckpoint, FindsWhatIsMissingCutOrFlipped) {
  const TemporaryFolder run;
  const auto reason_after = [&](const std::function<void(const fs::path&)>& harm) {
    const fs::path path = make_checkpoint(run.path(), 1);
    EXPECT_EQ(verify_checkpoint(path), std::nullopt);
    harm(path);
    return verify_checkpoint(path);
  };
  EXPECT_THAT(reason_after([](const fs::path& p) { fs::remove(p / "model.safetensors"); }),
              Optional(HasSubstr("model.safetensors is missing")));
  EXPECT_THAT(reason_after([](const fs::path& p) { fs::resize_file(p / "model.safetensors", 3); }),
              Optional(HasSubstr("model.safetensors has 3 bytes, expected 7")));
  EXPECT_THAT(reason_after([](const fs::path& p) { put(p / "model.safetensors", "wEights"); }),
              Optional(HasSubstr("model.safetensors does not match its checksum")));
  EXPECT_THAT(reason_after([](const fs::path& p) { fs::remove(p / "state.json"); }),
              Optional(HasSubstr("state.json")));
  EXPECT_THAT(reason_after([](const fs::path& p) { fs::resize_file(p / "state.json", 9); }),
              Optional(HasSubstr("is no JSON object of ours")));
  EXPECT_THAT(reason_after([](const fs::path& p) {
                fs::remove(p / "model.safetensors");
                fs::create_directory(p / "model.safetensors");
              }),
              Optional(HasSubstr("no regular file")));
}

TEST(NewestValidCheckpoint, PassesOverBrokenOnesAndSaysWhich) {
  const TemporaryFolder run;
  for (const int step : {5, 10, 20}) make_checkpoint(run.path(), step);
  put(run / "checkpoints/step_20/model.safetensors", "wEights");
  fs::remove(run / "checkpoints/step_10/config.json");
  std::vector<std::string> skipped;
  const auto newest = newest_valid_checkpoint(
      run.path(), [&](const Checkpoint& checkpoint, const std::string& reason) {
        skipped.push_back(std::to_string(checkpoint.step) + ": " + reason);
      });
  ASSERT_TRUE(newest.has_value());
  EXPECT_EQ(newest->step, 5);
  EXPECT_EQ(newest->path, run / "checkpoints/step_5");
  EXPECT_THAT(skipped, ElementsAre(AllOf(HasSubstr("20: "), HasSubstr("checksum")),
                                   AllOf(HasSubstr("10: "), HasSubstr("missing"))));
}

TEST(NewestValidCheckpoint, IsNoneWhereNoneIsWhole) {
  const TemporaryFolder run;
  EXPECT_FALSE(newest_valid_checkpoint(run.path()).has_value());
  fs::remove(make_checkpoint(run.path(), 5) / "config.json");
  EXPECT_FALSE(newest_valid_checkpoint(run.path()).has_value());
}

TEST(BestCheckpoint, IsTheEarlierOfTheLowestLosses) {
  const TemporaryFolder run;
  const std::vector<std::pair<int, json>> losses = {
      {10, nullptr}, {20, 1.5}, {30, 1.25}, {40, 1.25}, {60, 2}};
  for (const auto& [step, loss] : losses) make_checkpoint(run.path(), step, loss);
  ASSERT_TRUE(best_checkpoint(run.path()).has_value());
  EXPECT_EQ(best_checkpoint(run.path())->step, 30);
}

TEST(RetainCheckpoints, KeepsTheLastOnesAndTheBest) {
  const TemporaryFolder run;
  for (int step = 10; step <= 60; step += 10) {
    make_checkpoint(run.path(), step, step == 20 ? 1.0 : 2.0);
  }
  retain_checkpoints(run.path(), 2, 60);
  EXPECT_THAT(steps_in(run.path()), ElementsAre(20, 50, 60));
  EXPECT_EQ(names_in(run / "checkpoints").size(), 3U);
  retain_checkpoints(run.path(), 0, 60);  // the newest stays in any case
  EXPECT_THAT(steps_in(run.path()), ElementsAre(20, 60));
}

TEST(RetainCheckpoints, WithoutAnyValidationLossKeepsTheLastOnes) {
  const TemporaryFolder run;
  for (const int step : {10, 20, 30}) make_checkpoint(run.path(), step);
  retain_checkpoints(run.path(), 2, 30);
  EXPECT_THAT(steps_in(run.path()), ElementsAre(20, 30));
}

TEST(RetainCheckpoints, BrokenOrLaterOnesDoNotPushOutTheNewest) {
  const TemporaryFolder run;
  for (const int step : {10, 20, 30, 90}) make_checkpoint(run.path(), step);
  fs::remove(run / "checkpoints/step_20/config.json");
  // A run resumed from step 10 has just written 30; 90 is from before.
  retain_checkpoints(run.path(), 1, 30);
  EXPECT_THAT(steps_in(run.path()), ElementsAre(20, 30, 90));
}

TEST(SetAsideLater, RenamesWhatIsBeyondAStepAndRemovesNothing) {
  const TemporaryFolder run;
  for (const int step : {10, 20, 30}) make_checkpoint(run.path(), step, 1.0, "first");
  put(run / "checkpoints/step_30/model.safetensors", "other");  // of the same size
  const auto moved = set_aside_later(run.path(), 10);
  ASSERT_EQ(moved.size(), 2U);
  EXPECT_EQ(moved[0].from, run / "checkpoints/step_20");
  EXPECT_EQ(moved[0].to, run / "checkpoints/later-step_20");
  EXPECT_EQ(moved[1].to, run / "checkpoints/damaged-step_30");
  EXPECT_THAT(steps_in(run.path()), ElementsAre(10));
  EXPECT_EQ(verify_checkpoint(run / "checkpoints/later-step_20"), std::nullopt);
  // The same once more: both are kept.
  make_checkpoint(run.path(), 20, 1.0, "second");
  set_aside_later(run.path(), 10);
  EXPECT_EQ(get(run / "checkpoints/later-step_20/model.safetensors"), "first");
  EXPECT_EQ(get(run / "checkpoints/later-step_20.2/model.safetensors"), "second");
  set_aside_later(run.path(), -1);
  EXPECT_THAT(steps_in(run.path()), IsEmpty());
  EXPECT_EQ(names_in(run / "checkpoints").size(), 4U);
}

}  // namespace
}  // namespace wavroute
