// The lock of a folder on a file system without flock: .lock-holder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "io/file.h"
#include "tests/io/dead_process.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::get;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::names_in;
using testing::put;
using testing::TemporaryFolder;
using ::testing::UnorderedElementsAre;

int no_flock(int, int) {
  errno = ENOLCK;
  return -1;
}

// As a holder that has ended wrote it.
std::string content_of_a_dead_holder() {
  const std::string temporary = testing::name_of_a_dead_process("x");
  const std::string maker = temporary.substr(temporary.find("-x-") + 3);
  return "12 host " + maker.substr(0, maker.rfind('-')) + "\n";
}

TEST(LockHolder, GoesWithTheFolderThatItsHolderMade) {
  const TemporaryFolder folder;
  FileLock lock(folder.path(), no_flock);
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre(".lock", ".lock-holder"));
  lock.remove_if_made();
  EXPECT_THAT(names_in(folder.path()), IsEmpty());
}

TEST(LockHolder, ThatIsAnothersByNowIsLeftAlone) {
  const TemporaryFolder folder;
  const fs::path holder = folder / ".lock-holder";
  {
    const FileLock lock(folder.path(), no_flock);
    fs::remove(holder);  // as its message says; then another process begins there
    put(holder, "12 host another\n");
  }
  EXPECT_EQ(get(holder), "12 host another\n");
}

TEST(LockHolder, OfTheDeadIsTakenOverByOneProcessAtATime) {
  const TemporaryFolder folder;
  const fs::path holder = folder / ".lock-holder", takeover = folder / ".lock-takeover";
  const std::string dead = content_of_a_dead_holder();
  put(holder, dead);
  put(takeover, "13 host another\n");  // which is about to do it
  EXPECT_THAT(message_of<UserError>([&] { FileLock(folder.path(), no_flock); }),
              HasSubstr("remove " + holder.string() + " and " + takeover.string()));
  EXPECT_EQ(get(holder), dead);
  fs::remove(takeover);
  const FileLock lock(folder.path(), no_flock);
  EXPECT_TRUE(get(holder).starts_with(std::to_string(::getpid()) + " "));
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre(".lock", ".lock-holder"));
}

}  // namespace
}  // namespace wavroute
