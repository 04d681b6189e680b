// Children: what they are given, and how they end.
#include "io/child_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "io/file.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using testing::get;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;

ProgramStart shell(const std::string& script) { return {.argv = {"sh", "-c", script}}; }

ChildProcess copy_that(const std::function<int()>& action) { return ChildProcess(action); }

TEST(ChildProcess, TellsHowItEnded) {
  ChildProcess child(shell("exit 3"));
  child.wait();
  EXPECT_EQ(child.exit_code(), 3);
  EXPECT_EQ(child.signal(), 0);
  EXPECT_EQ(child.end_in_words(), "the process ended with exit status 3");
  ChildProcess killed(shell("kill -KILL $$"));
  killed.wait();
  EXPECT_EQ(killed.exit_code(), 128 + SIGKILL);
  EXPECT_THAT(killed.end_in_words(), HasSubstr("by signal 9"));
}

TEST(ChildProcess, ThatCanNotBeStartedIsAFailureWithTheSystemsWords) {
  for (const std::string program : {"/no/such/program", ""}) {
    const std::string what = message_of<Failure>([&] { ChildProcess({.argv = {program}}); });
    EXPECT_THAT(what, AllOf(HasSubstr("'" + program + "'"), HasSubstr("No such file")));
  }
}

TEST(ChildProcess, HasTheStreamsAndTheEnvironmentThatItIsGiven) {
  const TemporaryFolder folder;
  testing::put(folder / "in", "word");
  ::setenv("WAVROUTE_TEST_KEPT", "1", 1);
  ::setenv("WAVROUTE_TEST_GONE", "1", 1);
  {
    const Descriptor in(::open((folder / "in").c_str(), O_RDONLY | O_CLOEXEC));
    const Descriptor out(::open((folder / "out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ProgramStart start = shell(
        "read -r word; echo \"$word $WAVROUTE_TEST_KEPT "
        "${WAVROUTE_TEST_GONE-unset} $WAVROUTE_TEST_NEW\"; echo lost >&2");
    start.env = {{"WAVROUTE_TEST_NEW", "new"}};
    start.unset = {"WAVROUTE_TEST_GONE"};
    start.input = in.get();
    start.output = out.get();
    ChildProcess child(start);
    child.wait();
  }
  EXPECT_EQ(get(folder / "out"), "word 1 unset new\n");
  ::unsetenv("WAVROUTE_TEST_KEPT");
  ::unsetenv("WAVROUTE_TEST_GONE");
}

TEST(ChildProcess, HearsASignalAndIsKilledAndReapedWithItsOwner) {
  ChildProcess told(shell("exec sleep 60"));
  EXPECT_FALSE(told.wait_for(1ms));
  told.send(SIGTERM);
  EXPECT_TRUE(told.wait_for(20s));
  EXPECT_EQ(told.signal(), SIGTERM);
  pid_t id = 0;
  {
    const ChildProcess child(shell("exec sleep 60"));
    id = child.id();
  }
  EXPECT_EQ(::kill(id, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST(ChildProcess, ThatIsACopyEndsWithWhatItsFunctionReturns) {
  ChildProcess child = copy_that([] { return 5; });
  child.wait();
  EXPECT_EQ(child.exit_code(), 5);
  ChildProcess broken = copy_that([]() -> int { throw std::runtime_error("no"); });
  broken.wait();
  EXPECT_EQ(broken.exit_code(), 1);
}

TEST(ChildProcess, CanBeStopped) {
  ChildProcess child = copy_that([] { return ::raise(SIGSTOP); });
  EXPECT_TRUE(child.wait_until_stopped());
  EXPECT_FALSE(child.has_ended());
  child.send(SIGCONT);
  EXPECT_FALSE(child.wait_until_stopped());
  EXPECT_EQ(child.exit_code(), 0);
}

// Under the signals of this program: handlers end with the exec, blocks are lifted.
TEST(ChildProcess, StartsWithoutOurBlocksAndHandlers) {
  const auto before = std::signal(SIGUSR1, [](int) {});
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
  ChildProcess child(shell("kill -USR1 $$; exit 0"));
  child.wait();
  ::sigprocmask(SIG_UNBLOCK, &blocked, nullptr);
  std::signal(SIGUSR1, before);
  EXPECT_EQ(child.signal(), SIGUSR1);
}

// Its own child is started by a process that is killed.
TEST(ChildProcess, DoesNotOutliveItsParent) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);
  ChildProcess parent = copy_that([&] {
    ProgramStart start = shell("exec sleep 60");
    start.output = write_end.get();  // closed by its end
    const ChildProcess child(start);
    return ::raise(SIGKILL);
  });
  write_end.reset();
  char none = 0;
  EXPECT_EQ(::read(read_end.get(), &none, 1), 0);  // the end of the stream: both have gone
  parent.wait();
  EXPECT_EQ(parent.signal(), SIGKILL);
}

}  // namespace
}  // namespace wavroute
