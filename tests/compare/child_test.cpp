// A child that runs to its end: how it ended is never guessed.
#include "compare/child.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Child : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = fs::temp_directory_path() / "wavroute child XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override { fs::remove_all(folder_); }

  ChildResult shell(const std::string& script, bool stop = false) const {
    return run_child({"/bin/sh", "-c", script}, folder_ / "log", [=] { return stop; });
  }

  fs::path folder_;
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

TEST_F(Child, IsToldToStop) {
  EXPECT_EQ(shell("exec sleep 60", /*stop=*/true).exit_code, 128 + SIGTERM);
}

TEST_F(Child, ThatCanNotBeStartedIsAFailure) {
  EXPECT_THROW(static_cast<void>(
                   run_child({(folder_ / "none").string()}, folder_ / "log", [] { return false; })),
               Failure);
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
