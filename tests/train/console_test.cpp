// The output of a run when nobody can read it, and the signals that reach it.
#include "train/console.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <string>

#include "tests/temporary_folder.h"
#include "train/process.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

// Replaces standard output and standard error by `descriptor` while it exists.
class Redirected {
 public:
  explicit Redirected(int descriptor) {
    for (size_t i = 0; i < 2; ++i) {
      saved_[i] = ::dup(static_cast<int>(i) + 1);
      ::dup2(descriptor, static_cast<int>(i) + 1);
    }
    ::close(descriptor);
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;
  ~Redirected() {
    for (size_t i = 0; i < 2; ++i) {
      ::dup2(saved_[i], static_cast<int>(i) + 1);
      ::close(saved_[i]);
    }
  }

 private:
  std::array<int, 2> saved_{};
};

int full_disk() { return ::open("/dev/full", O_WRONLY); }

int pipe_without_reader() {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return -1;
  ::close(ends[0]);
  return ends[1];
}

// Its other side is gone, as that of a window that was closed: writes fail with EIO.
int terminal_that_went_away() {
  const int controller = ::posix_openpt(O_RDWR | O_NOCTTY);
  ::grantpt(controller);
  ::unlockpt(controller);
  const int terminal = ::open(::ptsname(controller), O_RDWR | O_NOCTTY);
  ::close(controller);
  return terminal;
}

class DeadConsole : public ::testing::TestWithParam<int (*)()> {};

INSTANTIATE_TEST_SUITE_P(Streams, DeadConsole,
                         ::testing::Values(full_disk, pipe_without_reader,
                                           terminal_that_went_away));

TEST_P(DeadConsole, NeverThrowsAndTheLogHasEveryLine) {
  const TemporaryFolder folder;
  std::signal(SIGPIPE, SIG_IGN);  // as the command does
  const int stream = GetParam()();
  ASSERT_GE(stream, 0);
  {
    const Redirected both(stream);
    Console console(/*quiet=*/false);
    console.open_log(folder / "train.log");
    console.say("one");
    console.bar(1, 2, 3.0);
    console.note("two");
    console.warn("three");
    console.say("four");
  }
  const std::string log = get(folder / "train.log");
  EXPECT_THAT(log, ::testing::StartsWith("one\nstandard output can't be written ("));
  EXPECT_THAT(log, ::testing::EndsWith("\ntwo\nwavroute: three\nfour\n"));
}

TEST(Log, ThatCanNotBeWrittenCostsAWarningAndNeverAWait) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0666), 0);
  std::filesystem::create_symlink("/dev/null", folder / "device");
  std::filesystem::create_directory(folder / "folder");
  for (const char* name : {"pipe", "device", "folder", "none/train.log"}) {
    Console console(/*quiet=*/true);
    EXPECT_NO_THROW(console.open_log(folder / name)) << name;
    EXPECT_NO_THROW(console.say("one")) << name;
  }
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "device"));
}

TEST(Log, IsNotHandedToProgramsThatAreStarted) {
  const TemporaryFolder folder;
  Console console(/*quiet=*/true);
  console.open_log(folder / "train.log");
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    if (std::filesystem::read_symlink(entry.path(), ignored) != folder / "train.log") continue;
    ++found;
    EXPECT_EQ(::fcntl(std::stoi(entry.path().filename()), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
  EXPECT_EQ(found, 1);
}

TEST(Signals, ThatEndATerminalAreARequestToStop) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    const auto before = std::signal(number, SIG_DFL);
    {
      const StopSignal stop;
      EXPECT_FALSE(StopSignal::requested());
      ::raise(number);
      EXPECT_TRUE(StopSignal::requested()) << number;
    }
    EXPECT_EQ(std::signal(number, before), SIG_DFL) << number;
  }
}

// SIGHUP under nohup, SIGINT where a script starts the command in the background.
TEST(Signals, StayIgnoredWhereTheyWere) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    const auto before = std::signal(number, SIG_IGN);
    {
      const StopSignal stop;
      ::raise(number);
      EXPECT_FALSE(StopSignal::requested()) << number;
    }
    EXPECT_EQ(std::signal(number, before), SIG_IGN) << number;
  }
}

}  // namespace
}  // namespace wavroute
