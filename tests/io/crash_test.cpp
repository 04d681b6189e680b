// Kills and full disks: whatever happens, the complete old or new content remains.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>

#include "io/checkpoint.h"
#include "io/child_process.h"
#include "io/file.h"
#include "io/jsonl.h"
#include "io/run_folder.h"
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
using ::testing::SizeIs;
using testing::TemporaryFolder;
using ::testing::UnorderedElementsAre;

// A process that runs `action` until it ends itself or is killed.
ChildProcess child_of(const std::function<void()>& action) {
  return ChildProcess(std::function<int()>([&action] {
    action();
    return 0;
  }));
}

// The signal that ended it; 0 where it ended itself.
int end_of(ChildProcess& child) {
  child.wait();
  return child.signal();
}

TEST(Kill, BetweenTheLastWriteAndTheRenameLeavesTheOldContent) {
  const TemporaryFolder folder;
  put(folder / "a", "old");
  ChildProcess child = child_of([&] {
    AtomicFile file(folder / "a");
    file.write("new");
    ::raise(SIGKILL);
  });
  EXPECT_EQ(end_of(child), SIGKILL);
  EXPECT_EQ(get(folder / "a"), "old");
  EXPECT_THAT(names_in(folder.path()), SizeIs(2));
  write_file_atomic(folder / "a", "newer");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("a"));
}

// The moments of kills, random in each run; WAVROUTE_TEST_SEED=N repeats one.
std::mt19937 random_moments() {
  const char* given = std::getenv("WAVROUTE_TEST_SEED");
  const auto seed = given == nullptr ? std::random_device()()
                                     : static_cast<unsigned>(std::strtoul(given, nullptr, 10));
  std::cout << "moments of kills: WAVROUTE_TEST_SEED=" << seed << std::endl;
  return std::mt19937(seed);
}

// A reader reads a file that is rewritten all the time, until its writer is killed.
TEST(Kill, AtAnyMomentOfManyWritesLeavesOneWholeContent) {
  constexpr size_t kSize = 300'000;
  const TemporaryFolder folder;
  const auto expect_whole = [&] {
    const std::string content = get(folder / "a");
    ASSERT_EQ(content.size(), kSize);
    ASSERT_EQ(std::ranges::count(content, content.front()), static_cast<ptrdiff_t>(kSize));
  };
  write_file_atomic(folder / "a", std::string(kSize, 'z'));
  std::mt19937 moments = random_moments();
  for (int round = 0; round < 10; ++round) {
    ChildProcess child = child_of([&] {
      for (char letter = 'a';; letter = letter == 'y' ? 'a' : static_cast<char>(letter + 1)) {
        AtomicFile file(folder / "a");
        for (int piece = 0; piece < 3; ++piece) file.write(std::string(kSize / 3, letter));
        file.commit();
      }
    });
    for (auto looks = 1 + moments() % 30; looks > 0; --looks) expect_whole();
    child.kill();
    EXPECT_EQ(end_of(child), SIGKILL);
    expect_whole();
  }
}

TEST(Kill, WhileACheckpointIsWrittenLeavesTheLastOneAndTheNextRunSweepsUp) {
  const TemporaryFolder run;
  put(run / "config.toml", "");
  CheckpointWriter(run.path(), 1).finish({});
  ChildProcess child = child_of([&] {
    CheckpointWriter writer(run.path(), 2);
    writer.write("config.json", "{}");
    ::raise(SIGKILL);
  });
  EXPECT_EQ(end_of(child), SIGKILL);
  EXPECT_THAT(list_checkpoints(run.path()), SizeIs(1));
  const RunFolder resumed = RunFolder::create(run.path(), ExistingRun::kResume);
  EXPECT_THAT(names_in(run / "checkpoints"), SizeIs(2));
  resumed.sweep();
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step_1"));
}

TEST(Kill, WhileACheckpointIsReplacedLeavesAWholeOneInItsPlace) {
  const TemporaryFolder run;
  const auto write_checkpoint = [&](char letter) {
    CheckpointWriter writer(run.path(), 5);
    for (const char* name :
         {"config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"}) {
      writer.write(name, std::string(20'000, letter));
    }
    writer.finish({});
  };
  write_checkpoint('z');
  std::mt19937 moments = random_moments();
  for (int round = 0; round < 15; ++round) {
    ChildProcess child = child_of([&] {
      for (char letter = 'a';; letter = letter == 'y' ? 'a' : static_cast<char>(letter + 1)) {
        write_checkpoint(letter);
      }
    });
    ::usleep(static_cast<useconds_t>(1'000 + moments() % 29'000));
    child.kill();
    EXPECT_EQ(end_of(child), SIGKILL);
    EXPECT_EQ(verify_checkpoint(run / "checkpoints/step_5"), std::nullopt) << "round " << round;
  }
}

TEST(Kill, FreesTheLock) {
  const TemporaryFolder folder;
  ChildProcess child = child_of([&] {
    const FileLock lock(folder.path());
    put(folder / "locked", "");
    ::pause();
  });
  while (!fs::exists(folder / "locked")) ::usleep(1000);
  EXPECT_THROW(FileLock{folder.path()}, UserError);
  child.kill();
  EXPECT_EQ(end_of(child), SIGKILL);
  EXPECT_NO_THROW(FileLock{folder.path()});
}

// A file system of 64 KiB.
class FullDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::mount("tmpfs", disk().c_str(), "tmpfs", 0, "size=64k") != 0) {
      GTEST_SKIP() << "a small file system can't be mounted here: " << std::strerror(errno);
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (!mounted_) return;
    EXPECT_EQ(::umount(disk().c_str()), 0) << std::strerror(errno);
  }

  [[nodiscard]] const fs::path& disk() const { return folder_.path(); }
  [[nodiscard]] std::string path(const std::string& name) const { return (disk() / name).string(); }

 private:
  TemporaryFolder folder_;
  bool mounted_ = false;
};

constexpr size_t kTooMuch = 100'000;

TEST_F(FullDisk, LeavesTheOldFileAndNoOther) {
  put(disk() / "a", "old");
  EXPECT_THAT(
      message_of<Failure>([&] { write_file_atomic(disk() / "a", std::string(kTooMuch, 'x')); }),
      AllOf(HasSubstr("No space left on device"), HasSubstr(path("a")), HasSubstr("--out")));
  EXPECT_EQ(get(disk() / "a"), "old");
  EXPECT_THAT(names_in(disk()), ElementsAre("a"));
}

TEST_F(FullDisk, LeavesTheOldSafetensorsFile) {
  const std::string large(kTooMuch, 'x'), small(4, 'x');
  const auto write = [&](const std::string& data) {
    write_safetensors(
        disk() / "f",
        {{"x", Dtype::kU8, {static_cast<int64_t>(data.size())}, std::as_bytes(std::span(data))}});
  };
  write(small);
  EXPECT_THAT(message_of<Failure>([&] { write(large); }),
              AllOf(HasSubstr("No space left on device"), HasSubstr(path("f"))));
  EXPECT_EQ(SafetensorsFile(disk() / "f").find("x")->bytes.size(), small.size());
  EXPECT_THAT(names_in(disk()), ElementsAre("f"));
}

TEST_F(FullDisk, LeavesTheLastCheckpointWhole) {
  const auto write_checkpoint = [&](int64_t step, size_t size) {
    CheckpointWriter writer(disk(), step);
    for (const char* name : {"config.json", "optimizer.safetensors", "tokenizer.json"}) {
      writer.write(name, "{}");
    }
    writer.write("model.safetensors", std::string(size, 'x'));
    writer.finish({});
  };
  write_checkpoint(1, 10);
  for (const int64_t step : {1, 2}) {
    EXPECT_THAT(message_of<Failure>([&] { write_checkpoint(step, kTooMuch); }),
                AllOf(HasSubstr("No space left on device"), HasSubstr("model.safetensors")));
  }
  EXPECT_THAT(names_in(disk() / "checkpoints"), ElementsAre("step_1"));
  EXPECT_EQ(verify_checkpoint(disk() / "checkpoints/step_1"), std::nullopt);
}

TEST_F(FullDisk, TakesNoPartOfALineIntoTheMetricsAndGoesOnWhenThereIsSpaceAgain) {
  JsonlWriter writer(disk() / "m");
  writer.append({{"step", 1}});
  // Room for one more block of 4096 bytes: the line of 9000 fits in part.
  put(disk() / "filler", std::string(65536 - 2 * 4096, 'x'));
  EXPECT_THAT(message_of<Failure>([&] {
                writer.append({{"text", std::string(9000, 'x')}});
              }),
              AllOf(HasSubstr("No space left on device"), HasSubstr(path("m"))));
  EXPECT_EQ(get(disk() / "m"), "{\"step\":1}\n");
  fs::remove(disk() / "filler");
  writer.append({{"step", 2}});
  EXPECT_EQ(get(disk() / "m"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(FullDisk, CutMetricsLeavesTheOldLines) {
  std::string lines;
  for (int step = 0; lines.size() < 40'000; ++step) {
    lines += "{\"step\":" + std::to_string(step) + "}\n";
  }
  put(disk() / "m", lines);
  const std::string before = get(disk() / "m");
  EXPECT_THAT(message_of<Failure>([&] { cut_metrics(disk() / "m", 2000); }),
              HasSubstr("No space left on device"));
  EXPECT_EQ(get(disk() / "m"), before);
}

// Root can write anywhere except on a read-only file system.
TEST_F(FullDisk, AReadOnlyDiskIsAUserErrorThatNamesThePath) {
  put(disk() / "a", "old");
  ASSERT_EQ(::mount("tmpfs", disk().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64k"), 0);
  EXPECT_THAT(message_of<UserError>([&] { write_file_atomic(disk() / "a", "new"); }),
              AllOf(HasSubstr("Read-only file system"), HasSubstr(path("a"))));
  EXPECT_THAT(message_of<UserError>([&] { (void)RunFolder::create(disk() / "run"); }),
              AllOf(HasSubstr("Read-only file system"), HasSubstr(path("run"))));
  EXPECT_EQ(get(disk() / "a"), "old");
}

}  // namespace
}  // namespace wavroute
