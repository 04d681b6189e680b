#include "base/threads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

// A machine with 3 usable cores, and no setting in the environment.
class Threads : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"}) ::unsetenv(name);
    machine_.cores = 3;
  }
  void TearDown() override {
    for (const char* name : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"}) ::unsetenv(name);
  }

  [[nodiscard]] std::string refusal(int64_t wanted) const {
    try {
      return std::to_string(threads_to_use(wanted, machine_));
    } catch (const UserError& error) {
      return error.what();
    }
  }

  Machine machine_;
};

TEST_F(Threads, AreTheCoresThatMayBeUsed) { EXPECT_EQ(threads_to_use(0, machine_), 3); }

TEST_F(Threads, AreWhatTheUserSaysToOpenMp) {
  ::setenv("OMP_NUM_THREADS", "7", 1);
  EXPECT_EQ(threads_to_use(0, machine_), 7);
  ::setenv("OMP_NUM_THREADS", "2,4", 1);
  EXPECT_EQ(threads_to_use(0, machine_), 2);
  ::setenv("OMP_THREAD_LIMIT", "1", 1);
  EXPECT_EQ(threads_to_use(0, machine_), 1);
}

TEST_F(Threads, AnExplicitNumberStandsBesideTheEnvironment) {
  ::setenv("OMP_NUM_THREADS", "7", 1);
  EXPECT_EQ(threads_to_use(2, machine_), 2);
}

TEST_F(Threads, WhatOpenMpDoesNotTakeForANumberIsNone) {
  for (const char* text : {"", "0", "-2", "many", "2x", "99999999999999999999"}) {
    ::setenv("OMP_NUM_THREADS", text, 1);
    EXPECT_EQ(threads_to_use(0, machine_), 3) << "'" << text << "'";
  }
}

TEST_F(Threads, FarBeyondTheMachineAreRefusedWithTheLimit) {
  EXPECT_EQ(refusal(256), "256");
  EXPECT_THAT(refusal(257), HasSubstr("at most 256 threads"));
  EXPECT_THAT(refusal(100000), HasSubstr("given 100000"));
  EXPECT_THAT(refusal(-1), HasSubstr("given -1"));
  ::setenv("OMP_NUM_THREADS", "100000", 1);
  EXPECT_THAT(refusal(0), HasSubstr("by OMP_NUM_THREADS"));
  machine_.cores = 128;
  EXPECT_EQ(refusal(512), "512");
  EXPECT_THAT(refusal(513), HasSubstr("at most 512 threads"));
}

}  // namespace
}  // namespace wavroute
