// A child that runs to its end: its exit status is never guessed.
#include "compare/child.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

#include "base/affinity.h"
#include "io/child_process.h"
#include "io/file.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A zombie that nobody reaps is not alive.
bool is_alive(pid_t process) {
  std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
  std::string number, name, state;
  return stat >> number >> name >> state && state != "Z";
}

class Child : public ::testing::Test {
 protected:
  ChildResult shell(const std::string& script, bool stop = false) const {
    return run_child({"/bin/sh", "-c", script}, folder_ / "log", [=] { return stop; });
  }

  const testing::TemporaryFolder temporary_{"wavroute child "};
  const fs::path folder_ = temporary_.path();
};

TEST_F(Child, EndsWithItsExitCodeAndItsLastWords) {
  const ChildResult result = shell("echo out; echo err >&2; exit 3");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.error_tail, "out\nerr\n");
  EXPECT_EQ(shell("exit 0").exit_code, 0);
}

TEST_F(Child, KilledBySignalCountsFrom128) {
  EXPECT_EQ(shell("kill -KILL $$").exit_code, 128 + SIGKILL);
}

// As OpenMP leaves the first thread under OMP_PROC_BIND: a cell would train on one core.
TEST_F(Child, GetsAllProcessorsOfAParentWhoseThreadIsBoundToOne) {
  const int all = given_processors();
  if (all < 2) GTEST_SKIP() << "one processor is all there is";
  keep_given_processors();
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (size_t i = 0; CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const ChildResult result = shell("unset OMP_NUM_THREADS OMP_THREAD_LIMIT; nproc");
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(result.error_tail, std::to_string(all) + "\n");
}

TEST_F(Child, IsToldToStop) {
  EXPECT_EQ(shell("exec sleep 60", /*stop=*/true).exit_code, 128 + SIGTERM);
}

TEST_F(Child, ThatCanNotBeStartedIsAFailure) {
  EXPECT_THROW(static_cast<void>(
                   run_child({(folder_ / "none").string()}, folder_ / "log", [] { return false; })),
               Failure);
}

// What the child inherits of this process' signals: no handler, nothing blocked, SIGPIPE as usual.
TEST_F(Child, StartsWithSignalsAsAShellWouldGiveThem) {
  const auto handler = std::signal(SIGTERM, [](int) {});
  const auto pipe = std::signal(SIGPIPE, SIG_IGN);
  const auto hangup = std::signal(SIGHUP, SIG_IGN);
  const ChildResult result = shell("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status");
  std::signal(SIGTERM, handler);
  std::signal(SIGPIPE, pipe);
  std::signal(SIGHUP, hangup);
  const auto mask = [&](const std::string& name) {
    const auto at = result.error_tail.find(name + ":");
    return std::stoull(result.error_tail.substr(at + name.size() + 1), nullptr, 16);
  };
  const auto bit = [](int number) { return 1ULL << (number - 1); };
  EXPECT_EQ(mask("SigBlk") & (bit(SIGTERM) | bit(SIGINT)), 0U);
  EXPECT_EQ(mask("SigIgn") & bit(SIGPIPE), 0U);
  EXPECT_NE(mask("SigIgn") & bit(SIGHUP), 0U);  // stays ignored, as under nohup
}

// The process that waits for it is killed: the child goes too, at whatever moment.
TEST_F(Child, DoesNotOutliveItsParent) {
  int lived = 0;
  for (const int wait_ms : {0, 1, 3, 10, 60, 300}) {
    const fs::path pid_file = folder_ / ("pid" + std::to_string(wait_ms));
    ChildProcess parent(std::function<int()>([&] {
      std::signal(SIGTERM, [](int) {});  // as compare has one
      static_cast<void>(
          run_child({"/bin/sh", "-c", "echo $$ > \"" + pid_file.string() + "\"; exec sleep 60"},
                    folder_ / "log", [] { return false; }));
      return 0;
    }));
    usleep(static_cast<useconds_t>(wait_ms) * 1000);
    parent.kill();
    usleep(200'000);
    std::ifstream file(pid_file);
    pid_t child = 0;
    if (!(file >> child)) continue;  // it never came to life
    ++lived;
    for (int i = 0; i < 50 && is_alive(child); ++i) usleep(20'000);
    EXPECT_FALSE(is_alive(child)) << wait_ms;
  }
  EXPECT_GE(lived, 1);
}

TEST_F(Child, WritesItsLogThroughNoLink) {
  fs::create_symlink(folder_ / "elsewhere", folder_ / "link");
  static_cast<void>(run_child({"/bin/sh", "-c", "echo x"}, folder_ / "link", [] { return false; }));
  EXPECT_FALSE(fs::exists(folder_ / "elsewhere"));
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(folder_ / "link")));
  EXPECT_EQ(read_file(folder_ / "link"), "x\n");
}

// With SIGCHLD ignored the kernel keeps no exit status: a failed child must not look like success.
TEST_F(Child, WhoseEndIsLostIsAFailureNotASuccess) {
  const auto before = std::signal(SIGCHLD, SIG_IGN);
  try {
    const ChildResult result = shell("exit 1");
    ADD_FAILURE() << "exit code " << result.exit_code << " of a child that nobody could wait for";
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), HasSubstr("/bin/sh"));
    EXPECT_THAT(failure.hint(), HasSubstr("SIGCHLD"));
  }
  std::signal(SIGCHLD, before);
}

}  // namespace
}  // namespace wavroute
