// Who holds a folder: one process at a time, whatever the file system and however a holder ended.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <utility>

#include "io/child_process.h"
#include "io/file.h"
#include "tests/io/dead_process.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::get;
using ::testing::HasSubstr;
using testing::message_of;
using testing::names_in;
using testing::put;
using testing::TemporaryFolder;
using ::testing::UnorderedElementsAre;

TEST(FileLock, KeepsASecondHolderOutAndNamesTheFirst) {
  const TemporaryFolder folder;
  const FileLock lock(folder.path());
  // A second descriptor of the same process is refused as another process would be.
  EXPECT_THAT(message_of<UserError>([&] { FileLock{folder.path()}; }),
              AllOf(HasSubstr(folder.path().string()),
                    HasSubstr("process " + std::to_string(::getpid()) + " ")));
}

TEST(FileLock, KeepsAnotherProcessOut) {
  const TemporaryFolder folder;
  const FileLock lock(folder.path());
  ChildProcess child(std::function<int()>([&] {
    try {
      const FileLock second(folder.path());
    } catch (const UserError&) {
      return 7;
    }
    return 0;
  }));
  child.wait();
  EXPECT_EQ(child.exit_code(), 7);
}

TEST(FileLock, IsFreeAgainAfterItsHolder) {
  const TemporaryFolder folder;
  put(folder / ".lock", "99999999999");  // of a longer process number
  { const FileLock lock(folder.path()); }
  const FileLock lock(folder.path());
  EXPECT_TRUE(get(folder / ".lock").starts_with(std::to_string(::getpid()) + " "));
  EXPECT_EQ(lock.warning(), "");
}

TEST(IsHeld, WhileALockLivesAndNotAfterItsHolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(is_held(folder.path()), false);  // nobody has ever held it
  {
    const FileLock lock(folder.path());
    EXPECT_EQ(is_held(folder.path()), true);
  }
  EXPECT_EQ(is_held(folder.path()), false);
  EXPECT_TRUE(fs::exists(folder / ".lock"));
}

// As a reader has it that looks whether the folder is held.
TEST(FileLock, WaitsForALockThatIsTakenForAMoment) {
  const TemporaryFolder folder;
  static int calls;
  calls = 0;
  EXPECT_NO_THROW(FileLock(folder.path(), [](int file, int operation) {
    if (++calls > 2) return ::flock(file, operation);
    errno = EWOULDBLOCK;
    return -1;
  }));
  EXPECT_EQ(calls, 3);
}

TEST(FileLock, WritesThroughNoLinkAndOverNobodysFile) {
  const TemporaryFolder folder;
  put(folder / "target", "precious");
  fs::create_symlink("target", folder / ".lock");
  EXPECT_THAT(message_of<UserError>([&] { FileLock{folder.path()}; }),
              AllOf(HasSubstr("given a link"), HasSubstr((folder / ".lock").string())));
  EXPECT_EQ(get(folder / "target"), "precious");
  fs::remove(folder / ".lock");
  put(folder / ".lock", std::string(5000, 'x'));
  EXPECT_THAT(message_of<UserError>([&] { FileLock{folder.path()}; }), HasSubstr("something else"));
  EXPECT_EQ(get(folder / ".lock").size(), 5000U);
}

// Whoever waits for a lock file that its holder removes with the folder must not get a second lock
// beside the one on the new file.
TEST(FileLock, IsOnTheFileThatHasTheName) {
  const TemporaryFolder folder;
  static fs::path lock_file;
  lock_file = folder / ".lock";
  const FileLock lock(folder.path(), [](int file, int operation) {
    static bool removed = false;
    if (!std::exchange(removed, true)) fs::remove(lock_file);  // between open and flock
    return ::flock(file, operation);
  });
  EXPECT_THROW(FileLock{folder.path()}, UserError);
}

int no_flock(int, int) {
  errno = ENOLCK;
  return -1;
}

TEST(FileLock, OnAFileSystemWithoutFlockAFileKeepsOthersOut) {
  const TemporaryFolder folder;
  const fs::path holder = folder / ".lock-holder";
  {
    const FileLock lock(folder.path(), no_flock);
    EXPECT_THAT(lock.warning(), AllOf(HasSubstr("has no locks"), HasSubstr(holder.string())));
    EXPECT_THAT(message_of<UserError>([&] { FileLock(folder.path(), no_flock); }),
                AllOf(HasSubstr("process " + std::to_string(::getpid()) + " on "),
                      HasSubstr("remove " + holder.string())));
  }
  EXPECT_FALSE(fs::exists(holder));
}

TEST(FileLock, WithoutFlockTakesOverFromTheDeadOfThisMachineAlone) {
  const TemporaryFolder folder;
  const fs::path holder = folder / ".lock-holder";
  const auto content = [](const std::string& temporary) {  // PLACE-PID-START of its name
    const std::string maker = temporary.substr(temporary.find("-x-") + 3);
    return "12 host " + maker.substr(0, maker.rfind('-')) + "\n";
  };
  put(holder, content(testing::name_of_a_dead_process("x")));
  { const FileLock lock(folder.path(), no_flock); }
  for (const std::string& left : {content(testing::name_of_another_place("x")), std::string()}) {
    put(holder, left);
    EXPECT_THROW(FileLock(folder.path(), no_flock), UserError) << left;
    EXPECT_EQ(get(holder), left);
  }
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre(".lock", ".lock-holder"));
}

TEST(IsHeld, WithoutFlockByTheHoldersFileOfALivingProcess) {
  const TemporaryFolder folder;
  {
    const FileLock lock(folder.path(), no_flock);
    EXPECT_EQ(is_held(folder.path(), no_flock), true);
  }
  EXPECT_EQ(is_held(folder.path(), no_flock), false);
}

TEST(IsHeld, IsNotSaidOfALockThatCanNotBeOpened) {
  const TemporaryFolder folder;
  fs::create_symlink("elsewhere", folder / ".lock");
  EXPECT_EQ(is_held(folder.path()), std::nullopt);
}

}  // namespace
}  // namespace wavroute
