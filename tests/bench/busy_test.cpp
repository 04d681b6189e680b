#include "bench/busy.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>

namespace wavroute {
namespace {

// 'R', 'T' (stopped), 'Z', ...; 'X' if the process no longer exists.
char state_of(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const size_t name_end = text.rfind(')');
  return name_end == std::string::npos ? 'X' : text.at(name_end + 2);
}

// Whether `process` reaches one of `states` soon.
bool comes_to(pid_t process, const std::string& states) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < end) {
    if (states.find(state_of(process)) != std::string::npos) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

TEST(BusyProcesses, StandStillUntilResumedAndWhenPaused) {
  BusyProcesses busy(2);
  ASSERT_EQ(busy.ids().size(), 2U);
  for (int round = 0; round < 2; ++round) {
    for (const pid_t process : busy.ids()) EXPECT_EQ(state_of(process), 'T');
    busy.resume();
    for (const pid_t process : busy.ids()) EXPECT_TRUE(comes_to(process, "R"));
    busy.pause();
  }
}

TEST(BusyProcesses, EndWithTheirOwner) {
  pid_t stopped = 0, running = 0;
  {
    const BusyProcesses standing(1);
    BusyProcesses busy(1);
    busy.resume();
    stopped = standing.ids()[0], running = busy.ids()[0];
  }
  EXPECT_EQ(state_of(stopped), 'X');
  EXPECT_EQ(state_of(running), 'X');
}

TEST(BusyProcesses, EndWithTheProcessThatStartedThemHoweverItEnds) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ChildProcess owner(std::function<int()>([&] {
    BusyProcesses busy(1);
    busy.resume();
    const pid_t process = busy.ids()[0];
    const bool told = ::write(ends[1], &process, sizeof process) == sizeof process;
    return ::kill(::getpid(), told ? SIGKILL : SIGTERM);
  }));
  pid_t busy = 0;
  ASSERT_EQ(::read(ends[0], &busy, sizeof busy), static_cast<ssize_t>(sizeof busy));
  owner.wait();
  EXPECT_EQ(owner.signal(), SIGKILL);
  EXPECT_TRUE(comes_to(busy, "XZ"));
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace wavroute
