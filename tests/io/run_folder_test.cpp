#include "io/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>

#include "temporary_folder.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::put;
using testing::TemporaryFolder;

void make_checkpoint(const fs::path& run, int64_t step, double val_loss) {
  CheckpointWriter writer(run, step);
  writer.write("config.json", "{}");
  writer.write("model.safetensors", "weights");
  writer.finish({{"val_loss", val_loss}});
}

TEST(RunFolder, MakesItsParentsAndNothingInsideYet) {
  const TemporaryFolder folder;
  const RunFolder run = RunFolder::create(folder / "runs/deep/wav");
  EXPECT_TRUE(fs::is_directory(folder / "runs/deep/wav"));
  EXPECT_FALSE(fs::exists(folder / "runs/deep/wav/samples"));
  EXPECT_FALSE(fs::exists(folder / "runs/deep/wav/checkpoints"));
  EXPECT_EQ(run.paths().metrics(), folder / "runs/deep/wav/metrics.jsonl");
}

TEST(RunFolder, RefusesAFolderThatHoldsARunUnlessItResumes) {
  for (const char* left :
       {"config.toml", "env.json", "metrics.jsonl", "train.log", "checkpoints/step_1/state.json"}) {
    const TemporaryFolder folder;
    fs::create_directories((folder / left).parent_path());
    put(folder / left, "");
    EXPECT_THAT(message_of<UserError>([&] { (void)RunFolder::create(folder.path()); }),
                AllOf(HasSubstr(folder.path().string()), HasSubstr("--resume auto")))
        << left;
    EXPECT_NO_THROW((void)RunFolder::create(folder.path(), ExistingRun::kResume)) << left;
    EXPECT_TRUE(fs::exists(folder / left));
  }
}

TEST(RunFolder, TakesAFolderWithOtherThingsAndOneThatWasLeftEmpty) {
  const TemporaryFolder folder;
  put(folder / "notes.txt", "");
  { const RunFolder run = RunFolder::create(folder.path()); }
  EXPECT_NO_THROW((void)RunFolder::create(folder.path()));
  EXPECT_TRUE(fs::exists(folder / "notes.txt"));
}

TEST(RunFolder, IsLockedWhileItLives) {
  const TemporaryFolder folder;
  {
    RunFolder first = RunFolder::create(folder.path());
    const RunFolder run = std::move(first);
    EXPECT_THAT(message_of<UserError>(
                    [&] { (void)RunFolder::create(folder.path(), ExistingRun::kResume); }),
                AllOf(HasSubstr(folder.path().string()), HasSubstr(std::to_string(::getpid()))));
  }
  EXPECT_NO_THROW((void)RunFolder::create(folder.path(), ExistingRun::kResume));
}

TEST(RunFolder, SweepsOutWhatWasLeftHalfWritten) {
  const TemporaryFolder folder;
  const fs::path stale = folder / "checkpoints" / temporary_name("step_3");
  fs::create_directories(stale / "inside");
  put(folder / temporary_name("config.toml-0"), "");
  (void)RunFolder::create(folder.path());  // what is half-written is no run
  EXPECT_FALSE(fs::exists(stale));
  EXPECT_FALSE(fs::exists(folder / temporary_name("config.toml-0")));
}

TEST(RunFolder, AnUnusablePathIsAUserErrorThatNamesIt) {
  const TemporaryFolder folder;
  put(folder / "file", "");
  EXPECT_THAT(message_of<UserError>([&] { (void)RunFolder::create(folder / "file" / "run"); }),
              HasSubstr((folder / "file").string()));
  EXPECT_THAT(message_of<UserError>([&] { (void)RunFolder::create("/proc/run"); }),
              HasSubstr("/proc/run"));
}

TEST(ResolveRun, TakesTheNewestTheBestOrAStepOfARunFolder) {
  const TemporaryFolder run;
  make_checkpoint(run.path(), 10, 1.0);
  make_checkpoint(run.path(), 20, 2.0);
  make_checkpoint(run.path(), 30, 3.0);
  EXPECT_EQ(resolve_run(run.path()), run / "checkpoints/step_30");
  EXPECT_EQ(resolve_run(run.path(), "best"), run / "checkpoints/step_10");
  EXPECT_EQ(resolve_run(run.path(), "20"), run / "checkpoints/step_20");
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path(), "25"); }),
              AllOf(HasSubstr("found '25'"), HasSubstr("10, 20, 30")));
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path(), "newest"); }),
              HasSubstr("found 'newest'"));
}

TEST(ResolveRun, PassesOverABrokenNewestButNotABrokenOneThatWasNamed) {
  const TemporaryFolder run;
  make_checkpoint(run.path(), 10, 2.0);
  make_checkpoint(run.path(), 20, 1.0);
  put(run / "checkpoints/step_20/model.safetensors", "wEights");
  int64_t skipped = 0;
  EXPECT_EQ(resolve_run(run.path(), "",
                        [&](const Checkpoint& checkpoint, const std::string&) {
                          skipped = checkpoint.step;
                        }),
            run / "checkpoints/step_10");
  EXPECT_EQ(skipped, 20);
  for (const char* which : {"20", "best"}) {
    EXPECT_THAT(
        message_of<UserError>([&] { (void)resolve_run(run.path(), which); }),
        AllOf(HasSubstr("model.safetensors does not match its checksum"), HasSubstr("step_20")));
  }
}

TEST(ResolveRun, TakesACheckpointFolderThatIsWhole) {
  const TemporaryFolder run;
  make_checkpoint(run.path(), 10, 1.0);
  const fs::path checkpoint = run / "checkpoints/step_10";
  EXPECT_EQ(resolve_run(checkpoint), checkpoint);
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(checkpoint, "best"); }),
              HasSubstr("found one checkpoint"));
  fs::remove(checkpoint / "model.safetensors");
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(checkpoint); }),
              HasSubstr("model.safetensors is missing"));
}

TEST(ResolveRun, TakesAHuggingFaceFolder) {
  const TemporaryFolder model;
  put(model / "config.json", "{}");
  put(model / "model.safetensors", "");
  EXPECT_EQ(resolve_run(model.path()), model.path());
  put(model / "config.toml", "");  // somebody's notes don't make it a run
  EXPECT_EQ(resolve_run(model.path()), model.path());
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(model.path(), "10"); }),
              HasSubstr("checkpoint '10'"));
}

TEST(ResolveRun, SaysWhatItFoundInstead) {
  const TemporaryFolder folder;
  const auto message = [&](const fs::path& path) {
    return message_of<UserError>([&] { (void)resolve_run(path); });
  };
  EXPECT_THAT(message(folder / "none"), AllOf(HasSubstr("found nothing"), HasSubstr("none")));
  EXPECT_THAT(message(folder.path()), HasSubstr("an empty folder"));
  put(folder / "file", "");
  EXPECT_THAT(message(folder / "file"), HasSubstr("found a file"));
  EXPECT_THAT(message(folder.path()), HasSubstr("a folder with file, at"));
  for (const char* name : {"a", "b", "c", "d", "e", "g", "h"}) put(folder / name, "");
  EXPECT_THAT(message(folder.path()), HasSubstr("a, b, c, d, e, file and 2 more"));
  put(folder / "model.safetensors.index.json", "{}");
  EXPECT_THAT(message(folder.path()), HasSubstr("found a model in several"));
}

TEST(ResolveRun, SaysThatARunHasNoCheckpointYetOrNoWholeOne) {
  const TemporaryFolder run;
  put(run / "config.toml", "");
  EXPECT_THAT(
      message_of<UserError>([&] { (void)resolve_run(run.path()); }),
      AllOf(HasSubstr("expected a checkpoint, found none, in"), HasSubstr("wavroute train")));
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path(), "best"); }),
              HasSubstr("with a validation loss, found none"));
  make_checkpoint(run.path(), 10, 1.0);
  fs::remove(run / "checkpoints/step_10/config.json");
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path()); }),
              HasSubstr("found none whole (in step_10 config.json is missing)"));
}

}  // namespace
}  // namespace wavroute
