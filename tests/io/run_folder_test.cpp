#include "io/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "tests/io/dead_process.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::get;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::names_in;
using testing::put;
using testing::TemporaryFolder;
using ::testing::UnorderedElementsAre;

void make_checkpoint(const fs::path& run, int64_t step, double val_loss) {
  CheckpointWriter writer(run, step);
  testing::put_checkpoint_files(writer);
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

// Training puts its own in their place; somebody's folder may hold such names.
TEST(RunFolder, RefusesAFolderWithAFileThatTrainingWouldReplace) {
  for (const char* name :
       {"report.html", "summary.json", "routing.json", "samples/step_12.txt", "metrics.jsonl"}) {
    const TemporaryFolder folder;
    fs::create_directories((folder / name).parent_path());
    put(folder / name, "precious");
    EXPECT_THAT(message_of<UserError>([&] { (void)RunFolder::create(folder.path()); }),
                HasSubstr("--out"))
        << name;
    EXPECT_EQ(get(folder / name), "precious");
    EXPECT_FALSE(fs::exists(folder / ".lock")) << name;
    EXPECT_EQ(RunPaths{folder.path()}.replaced_file(), folder / name);
  }
  const TemporaryFolder folder;
  fs::create_directory(folder / "samples");
  put(folder / "samples/drum.wav", "");
  EXPECT_NO_THROW((void)RunFolder::create(folder.path()));
}

// What it leads to may belong to another run, whose lock this one doesn't hold.
TEST(RunFolder, RefusesALinkInThePlaceOfOneOfItsFolders) {
  const TemporaryFolder other;
  for (const char* name : {"samples", "checkpoints"}) {
    for (const ExistingRun existing : {ExistingRun::kRefuse, ExistingRun::kResume}) {
      const TemporaryFolder folder;
      fs::create_directory_symlink(other.path(), folder / name);
      EXPECT_THAT(message_of<UserError>([&] { (void)RunFolder::create(folder.path(), existing); }),
                  AllOf(HasSubstr("given a link"), HasSubstr((folder / name).string())));
    }
  }
}

TEST(RunFolder, SweepsNothingThroughALink) {
  const TemporaryFolder folder, other;
  const std::string dead = testing::name_of_a_dead_process("step_3");
  put(other / dead, "");
  fs::create_directory_symlink(other.path(), folder / "configs");
  const RunFolder run = RunFolder::create(folder.path());
  EXPECT_THAT(run.sweep(), IsEmpty());
  EXPECT_TRUE(fs::exists(other / dead));
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

TEST(RunFolder, IsGoneAgainWhereNothingCameIntoIt) {
  const TemporaryFolder folder;
  { const RunFolder run = RunFolder::create(folder / "new"); }
  EXPECT_FALSE(fs::exists(folder / "new"));
  {
    const RunFolder run = RunFolder::create(folder / "used");
    put(run.paths().config(), "");
  }
  EXPECT_THAT(names_in(folder / "used"), UnorderedElementsAre(".lock", "config.toml"));
  // Another program's folder stays as it was.
  fs::create_directory(folder / "somebodys");
  put(folder / "somebodys/notes.txt", "");
  { const RunFolder run = RunFolder::create(folder / "somebodys"); }
  EXPECT_THAT(names_in(folder / "somebodys"), ElementsAre("notes.txt"));
}

TEST(RunFolder, RefusedLeavesSomebodysFolderAsItWas) {
  const TemporaryFolder folder;
  put(folder / "config.toml", "");
  const std::string left = testing::name_of_a_dead_process("step_3");
  put(folder / left, "");
  EXPECT_THROW((void)RunFolder::create(folder.path()), UserError);
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre("config.toml", left));
}

TEST(RunFolder, SweepsOutWhatADeadProcessLeftInAllItsPartsAndNothingBefore) {
  const TemporaryFolder folder;
  put(folder / "config.toml", "");
  const std::string dead = testing::name_of_a_dead_process("step_3");
  for (const char* part : {"checkpoints", "samples", "configs", "cells"}) {
    fs::create_directories(folder / part);
    put(folder / part / dead, "");
  }
  fs::create_directories(folder / "checkpoints" /
                         testing::name_of_a_dead_process("removed-step_2") / "inside");
  put(folder / dead, "");
  const RunFolder run = RunFolder::create(folder.path(), ExistingRun::kResume);
  EXPECT_TRUE(fs::exists(folder / dead));  // the command may still be refused
  EXPECT_THAT(run.sweep(), IsEmpty());
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre(".lock", "config.toml", "checkpoints",
                                                            "samples", "configs", "cells"));
  EXPECT_THAT(names_in(folder / "checkpoints"), IsEmpty());
  EXPECT_THAT(names_in(folder / "samples"), IsEmpty());
  EXPECT_THAT(names_in(folder / "configs"), IsEmpty());
  EXPECT_THAT(names_in(folder / "cells"), ElementsAre(dead));  // no part of a run folder
}

TEST(RunFolder, SweepNamesWhatAnotherHostOrContainerMayStillWrite) {
  const TemporaryFolder folder;
  const std::string foreign = testing::name_of_another_place("step_3");
  fs::create_directories(folder / "checkpoints" / foreign);
  const RunFolder run = RunFolder::create(folder.path(), ExistingRun::kResume);
  EXPECT_THAT(run.sweep(), ElementsAre(folder / "checkpoints" / foreign));
  EXPECT_TRUE(fs::exists(folder / "checkpoints" / foreign));
}

// ".tmp-LABEL-PID" is what earlier versions wrote; other programs may use such names as well.
TEST(RunFolder, SweepsOldFormsOnlyWhereAndWhatAnEarlierVersionMadeThem) {
  const TemporaryFolder folder;
  const std::string pid = std::to_string(testing::pid_of_a_dead_process());
  const fs::path checkpoints = folder / "checkpoints";
  const auto make = [&](const std::string& name, const std::string& inside) {
    fs::create_directories(checkpoints / name);
    put(checkpoints / name / inside, "");
    return name;
  };
  make(".tmp-step_7-" + pid, "model.safetensors");
  make(".tmp-removed-step_6-" + pid, ".tmp-config.json-0-" + pid);
  const std::string thesis = make(".tmp-step_8-" + pid, "thesis.tex"),
                    other = make(".tmp-backup-" + pid, "model.safetensors"),
                    alive = make(".tmp-step_9-" + std::to_string(::getpid()), "config.json");
  put(folder / (".tmp-config.toml-0-" + pid), "");
  const RunFolder run = RunFolder::create(folder.path(), ExistingRun::kResume);
  run.sweep();
  EXPECT_THAT(names_in(checkpoints), UnorderedElementsAre(thesis, other, alive));
  EXPECT_TRUE(fs::exists(folder / (".tmp-config.toml-0-" + pid)));
}

TEST(RunFolder, OfANewerFormatIsRefusedAndOfAnOlderOneRead) {
  const TemporaryFolder folder;
  const RunPaths paths{folder.path()};
  check_run_format(paths);
  for (const char* read : {R"({"wavroute": "0.1"})", R"({"format": 1})", "cut {"}) {
    put(paths.env(), read);
    EXPECT_NO_THROW(check_run_format(paths)) << read;
  }
  for (const char* newer : {R"({"format": 2})", R"({"format": "b"})", R"({"format": 1e300})"}) {
    put(paths.env(), newer);
    EXPECT_THAT(message_of<UserError>([&] { check_run_format(paths); }),
                AllOf(HasSubstr("newer version"), HasSubstr(folder.path().string())));
  }
  fs::resize_file(paths.env(), uint64_t{1} << 40);  // sparse: read, it would fill the memory
  EXPECT_NO_THROW(check_run_format(paths));
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
              AllOf(HasSubstr("given '25'"), HasSubstr("10, 20, 30")));
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path(), "newest"); }),
              HasSubstr("given 'newest'"));
}

TEST(ResolveRun, RefusesARunOfANewerFormat) {
  const TemporaryFolder run;
  make_checkpoint(run.path(), 10, 1.0);
  put(RunPaths{run.path()}.env(), R"({"format": 2})");
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path()); }),
              HasSubstr("format 1 at most"));
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
              HasSubstr("given one checkpoint"));
  fs::remove(checkpoint / "model.safetensors");
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(checkpoint); }),
              HasSubstr("model.safetensors is missing"));
}

TEST(ResolveRun, TakesAHuggingFaceFolder) {
  const TemporaryFolder model;
  put(model / "config.json", "{}");
  put(model / "model.safetensors", "");
  EXPECT_EQ(resolve_run(model.path()), model.path());
  put(model / "config.toml", "");  // another config.toml doesn't make it a run
  EXPECT_EQ(resolve_run(model.path()), model.path());
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(model.path(), "10"); }),
              HasSubstr("checkpoint '10'"));
}

TEST(ResolveRun, AModelBesideAFolderOfCheckpointsIsAModel) {
  const TemporaryFolder model;
  fs::create_directories(model / "checkpoints/step_100");  // of another program
  put(model / "config.json", "{}");
  put(model / "model.safetensors", "");
  EXPECT_EQ(resolve_run(model.path()), model.path());
  // A run may train in the folder of the model that it began with.
  put(model / "config.toml", "");
  fs::remove(model / "checkpoints/step_100");
  make_checkpoint(model.path(), 5, 1.0);
  EXPECT_EQ(resolve_run(model.path()), model / "checkpoints/step_5");
  fs::remove(model / "config.json");  // a model in several files
  fs::remove(model / "config.toml");
  fs::remove_all(model / "checkpoints/step_5");
  put(model / "model.safetensors.index.json", "{}");
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(model.path()); }),
              HasSubstr("given a model in several"));
}

TEST(ReadRunFolder, LooksAgainWhereTheCheckpointVanishesWhileItIsRead) {
  const TemporaryFolder run;
  make_checkpoint(run.path(), 10, 1.0);
  int reads = 0;
  read_run_folder(run.path(), "", {}, [&](const fs::path& folder) {
    if (++reads == 1) {  // the run in training writes the next one and removes this
      make_checkpoint(run.path(), 20, 2.0);
      fs::remove_all(run / "checkpoints/step_10");
    }
    EXPECT_EQ(get(folder / "model.safetensors").empty(), reads == 1);
    (void)read_file(folder / "model.safetensors");
  });
  EXPECT_EQ(reads, 2);
  // A folder that is still there has an error of its own.
  EXPECT_THROW(
      read_run_folder(run.path(), "", {}, [&](const fs::path&) { throw UserError("wrong"); }),
      UserError);
}

// Each of a reader's looks may fall between two steps of a removal: that is no trouble.
TEST(NewestCheckpoint, IsLookedForAgainHoweverFastCheckpointsComeAndGo) {
  const TemporaryFolder run;
  make_checkpoint(run.path(), 1, 1.0);
  const auto folder = [&](int64_t step) {
    return run / ("checkpoints/step_" + std::to_string(step));
  };
  std::atomic<bool> stop = false;
  std::thread training([&] {  // none comes back under a name that it had
    for (int64_t step = 1; !stop; ++step) fs::rename(folder(step), folder(step + 1));
  });
  std::string trouble;
  try {
    for (int i = 0; i < 3000; ++i) {
      (void)newest_valid_checkpoint(run.path());
      (void)best_checkpoint(run.path());
    }
  } catch (const Error& error) {
    trouble = error.what();
  }
  stop = true;
  training.join();
  EXPECT_EQ(trouble, "");
}

TEST(ResolveRun, SaysWhatItFoundInstead) {
  const TemporaryFolder folder;
  const auto message = [&](const fs::path& path) {
    return message_of<UserError>([&] { (void)resolve_run(path); });
  };
  EXPECT_THAT(message(folder / "none"), AllOf(HasSubstr("given nothing"), HasSubstr("none")));
  EXPECT_THAT(message(folder.path()), HasSubstr("an empty folder"));
  put(folder / "file", "");
  EXPECT_THAT(message(folder / "file"), HasSubstr("given a file"));
  EXPECT_THAT(message(folder.path()), HasSubstr("a folder with file, at"));
  for (const char* name : {"a", "b", "c", "d", "e", "g", "h"}) put(folder / name, "");
  EXPECT_THAT(message(folder.path()), HasSubstr("a, b, c, d, e, file and 2 more"));
  put(folder / "model.safetensors.index.json", "{}");
  EXPECT_THAT(message(folder.path()), HasSubstr("given a model in several"));
}

TEST(ResolveRun, SaysThatARunHasNoCheckpointYetOrNoWholeOne) {
  const TemporaryFolder run;
  put(run / "config.toml", "");
  EXPECT_THAT(
      message_of<UserError>([&] { (void)resolve_run(run.path()); }),
      AllOf(HasSubstr("expected a checkpoint, given none, in"), HasSubstr("wavroute train")));
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path(), "best"); }),
              HasSubstr("with a validation loss, given none"));
  make_checkpoint(run.path(), 10, 1.0);
  fs::remove(run / "checkpoints/step_10/config.json");
  EXPECT_THAT(message_of<UserError>([&] { (void)resolve_run(run.path()); }),
              HasSubstr("given none whole (in step_10 config.json is missing)"));
}

}  // namespace
}  // namespace wavroute
