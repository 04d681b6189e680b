// Trouble in reading a checkpoint (no permission, a broken device, too many open files) says
// nothing about its files: it is an error, never damage that is skipped.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/child_process.h"
#include "io/run_folder.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using testing::TemporaryFolder;

// Every way in which a command finds the checkpoint to continue from or to read.
const std::vector<std::pair<const char*, std::function<void(const fs::path&)>>> kLooks = {
    {"list", [](const fs::path& run) { (void)list_checkpoints(run); }},
    {"verify", [](const fs::path& run) { (void)verify_checkpoint(run / "checkpoints/step_20"); }},
    {"newest", [](const fs::path& run) { (void)newest_valid_checkpoint(run); }},
    {"best", [](const fs::path& run) { (void)best_checkpoint(run); }},
    {"resolve", [](const fs::path& run) { (void)resolve_run(run); }},
};

constexpr uid_t kNobody = 65534;
constexpr fs::perms kWrite =
    fs::perms::owner_write | fs::perms::group_write | fs::perms::others_write;

class Trouble : public ::testing::Test {
 protected:
  Trouble() {
    testing::put(run_ / "config.toml", "");
    for (const int step : {10, 20}) {
      CheckpointWriter writer(run_.path(), step);
      testing::put_checkpoint_files(writer);
      writer.finish({{"val_loss", 30 - step}});
    }
  }

  // Whether the look ends with an Error; 'damage' would be a quiet return, or a DamagedCheckpoint.
  [[nodiscard]] bool is_refused(const std::function<void(const fs::path&)>& look) const {
    try {
      look(run_.path());
    } catch (const DamagedCheckpoint&) {
      return false;
    } catch (const Error&) {
      return true;
    }
    return false;
  }

  // The names of the reads that are not refused to an ordinary user.
  [[nodiscard]] std::vector<std::string> passed_without_permission() const {
    int ends[2] = {};
    if (::pipe(ends) != 0) return {"no pipe"};
    ChildProcess child(std::function<int()>([&] {
      std::string passed;
      if (::geteuid() == 0 && ::seteuid(kNobody) != 0) passed = "no other user ";
      for (const auto& [name, look] : kLooks) {
        if (!is_refused(look)) passed += std::string(name) + " ";
      }
      return ::write(ends[1], passed.data(), passed.size()) < 0 ? 1 : 0;
    }));
    ::close(ends[1]);
    std::vector<std::string> names;
    std::string name;
    for (char letter = 0; ::read(ends[0], &letter, 1) == 1;) {
      if (letter != ' ') {
        name += letter;
      } else {
        names.push_back(std::exchange(name, {}));
      }
    }
    ::close(ends[0]);
    child.wait();
    return names;
  }

  // Whether `act` returns true to an ordinary user.
  [[nodiscard]] static bool as_ordinary_user(const std::function<bool()>& act) {
    ChildProcess child(std::function<int()>([&] {
      bool passed = ::geteuid() != 0 || ::seteuid(kNobody) == 0;
      try {
        passed = passed && act();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        passed = false;
      }
      return passed ? 0 : 1;
    }));
    child.wait();
    return child.exit_code() == 0;
  }

  TemporaryFolder run_;
};

TEST_F(Trouble, WithoutPermissionToListOrEnterIsAnError) {
  fs::permissions(run_.path(), fs::perms::all);
  const fs::path checkpoints = run_ / "checkpoints";
  fs::permissions(checkpoints, fs::perms::none);
  EXPECT_THAT(passed_without_permission(), ElementsAre());
  fs::permissions(checkpoints, fs::perms::owner_all | fs::perms::others_read);  // names, no content
  EXPECT_THAT(passed_without_permission(), ElementsAre());
  fs::permissions(checkpoints, fs::perms::all);
}

TEST_F(Trouble, WithoutPermissionToReadAFileIsAnError) {
  fs::permissions(run_.path(), fs::perms::all);
  for (const char* name : {"state.json", "model.safetensors"}) {
    const fs::path file = run_ / "checkpoints/step_20" / name;
    fs::permissions(file, fs::perms::none);
    const auto passed = passed_without_permission();
    if (name == std::string("state.json")) {
      EXPECT_THAT(passed, ElementsAre("list"));
    } else {
      EXPECT_THAT(passed, ElementsAre("list", "best"));  // which read no weights
    }
    fs::permissions(file, fs::perms::all);
  }
}

// Address 0 of a process can't be read: EIO.
TEST_F(Trouble, ABrokenDeviceIsAnErrorAndNothingIsRemoved) {
  const fs::path state = run_ / "checkpoints/step_20/state.json";
  fs::remove(state);
  fs::create_symlink("/proc/self/mem", state);
  for (const auto& [name, look] : kLooks) {
    EXPECT_EQ(is_refused(look), name != std::string("list")) << name;
  }
  retain_checkpoints(run_.path(), 1, 20);
  EXPECT_TRUE(fs::exists(run_ / "checkpoints/step_20/model.safetensors"));
  EXPECT_TRUE(fs::exists(run_ / "checkpoints/step_10"));  // it may be the only one left
}

// It can be renamed, but not emptied.
TEST_F(Trouble, AnOldCheckpointThatCanNotBeRemovedIsLeftAndNamed) {
  const fs::path checkpoints = run_ / "checkpoints", old = checkpoints / "step_10";
  fs::permissions(run_.path(), fs::perms::all);
  fs::permissions(checkpoints, fs::perms::all);
  fs::permissions(old, kWrite, fs::perm_options::remove);
  EXPECT_TRUE(as_ordinary_user([&] {
    std::vector<fs::path> told;
    retain_checkpoints(run_.path(), 1, 20, [&](const Checkpoint& left, const std::string&) {
      told.push_back(left.path);
    });
    return told == std::vector{old} && list_checkpoints(run_.path()).size() == 1;
  }));
  // What is left of it by a process that has ended stops no later one.
  EXPECT_TRUE(as_ordinary_user([&] {
    const RunFolder run = RunFolder::create(run_.path(), ExistingRun::kResume);
    const std::vector<fs::path> left = run.sweep();
    return left.size() == 1 && fs::exists(left[0] / "model.safetensors");
  }));
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    fs::permissions(entry.path(), fs::perms::all);
  }
}

TEST_F(Trouble, ACheckpointIsAsGoodWhereTheOneThatItReplacesCanNotBeRemoved) {
  const fs::path checkpoints = run_ / "checkpoints";
  fs::permissions(run_.path(), fs::perms::all);
  fs::permissions(checkpoints, fs::perms::all);
  fs::permissions(checkpoints / "step_20", kWrite, fs::perm_options::remove);
  EXPECT_TRUE(as_ordinary_user([&] {
    CheckpointWriter writer(run_.path(), 20);
    testing::put_checkpoint_files(writer, "new");
    writer.finish({});
    return testing::get(checkpoints / "step_20/model.safetensors") == "new" &&
           newest_valid_checkpoint(run_.path())->step == 20;
  }));
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    fs::permissions(entry.path(), fs::perms::all);
  }
}

TEST_F(Trouble, TooManyOpenFilesAreAnError) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the undefined-behaviour sanitizer opens pipes to look at objects";
#endif
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(next);
  const rlimit full{static_cast<rlim_t>(next), before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &full), 0);
  std::vector<std::string> passed;
  for (const auto& [name, look] : kLooks) {
    if (!is_refused(look)) passed.emplace_back(name);
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(passed, ElementsAre());
}

}  // namespace
}  // namespace wavroute
