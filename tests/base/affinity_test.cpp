// A thread that OpenMP has bound to one processor: what was given to the process, and what it
// starts.
#include "base/affinity.h"

#include <gtest/gtest.h>

#include <thread>

namespace wavroute {
namespace {

int processors_of_this_thread() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : -1;
}

int processors_of_a_new_thread() {
  int count = 0;
  std::thread([&] { count = processors_of_this_thread(); }).join();
  return count;
}

class Affinity : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(sched_getaffinity(0, sizeof before_, &before_), 0);
    if (CPU_COUNT(&before_) < 2) GTEST_SKIP() << "one processor is all there is";
    keep_given_processors();
    CPU_ZERO(&one_);
    for (size_t i = 0; CPU_COUNT(&one_) == 0; ++i) {
      if (CPU_ISSET(i, &before_)) CPU_SET(i, &one_);
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof one_, &one_), 0);
  }
  void TearDown() override { sched_setaffinity(0, sizeof before_, &before_); }

  cpu_set_t before_{}, one_{};
};

TEST_F(Affinity, ABoundThreadDoesNotChangeWhatTheProcessWasGiven) {
  EXPECT_EQ(given_processors(), CPU_COUNT(&before_));
}

TEST_F(Affinity, WhatABoundThreadStartsGetsAllProcessorsAndItStaysBound) {
  EXPECT_EQ(processors_of_a_new_thread(), 1);
  {
    const OnGivenProcessors whole;
    EXPECT_EQ(processors_of_a_new_thread(), CPU_COUNT(&before_));
  }
  EXPECT_EQ(processors_of_this_thread(), 1);
}

}  // namespace
}  // namespace wavroute
