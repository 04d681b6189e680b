#include "base/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A machine made of files: /proc and /sys under a folder of its own.
class FakeMachine : public ::testing::Test {
 protected:
  void SetUp() override {
    write("proc/meminfo", "MemTotal:  8000 kB\nMemFree:  10 kB\nMemAvailable:  6000 kB\n");
  }

  void write(const std::string& name, const std::string& text) const {
    testing::put(root_ / name, text);
  }

  const testing::TemporaryFolder temporary_;
  const fs::path root_ = temporary_.path();
};

TEST_F(FakeMachine, WithoutControlGroupsTheMemoryIsTheMachines) {
  const auto machine = probe_machine(root_);
  EXPECT_EQ(machine.memory_total, 8000U * 1024);
  EXPECT_EQ(machine.memory_available, 6000U * 1024);
  EXPECT_EQ(machine.cpu_model, "unknown");
  EXPECT_THAT(machine.instruction_sets, IsEmpty());
  EXPECT_GE(machine.cores, 1);
}

TEST_F(FakeMachine, NamesTheGpusOfTheDriverInTheirOrder) {
  EXPECT_THAT(probe_machine(root_).gpus, IsEmpty());
  const std::string folder = "proc/driver/nvidia/gpus/0000:";
  write(folder + "0a:00.0/information", "Model: \t\t NVIDIA B\nIRQ:   \t\t 48\n");
  write(folder + "01:00.0/information", "Model: \t\t NVIDIA A\nIRQ:   \t\t 47\n");
  EXPECT_THAT(probe_machine(root_).gpus, ElementsAre("NVIDIA A", "NVIDIA B"));
}

TEST_F(FakeMachine, VersionTwoLimitsCountTheCacheAsFree) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/memory.max", "4096000\n");
  write("sys/fs/cgroup/a/b/memory.current", "3000000\n");
  write("sys/fs/cgroup/a/b/memory.stat", "anon 5\ninactive_file 500000\nactive_file 7\n");
  const auto machine = probe_machine(root_);
  EXPECT_EQ(machine.memory_total, 4096000U);
  EXPECT_EQ(machine.memory_available, 4096000U - 3000000U + 500000U);
}

TEST_F(FakeMachine, TheTightestGroupAboveCountsToo) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/memory.max", "2000000\n");
  write("sys/fs/cgroup/a/memory.current", "1500000\n");
  write("sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_EQ(probe_machine(root_).memory_available, 500000U);
}

TEST_F(FakeMachine, AContainersOwnRootIsFoundWhereThePathIsNot) {
  write("proc/self/cgroup", "0::/somewhere/outside\n");
  write("sys/fs/cgroup/memory.max", "1000000\n");
  write("sys/fs/cgroup/memory.current", "1200000\n");  // over its limit: nothing is left
  const auto machine = probe_machine(root_);
  EXPECT_EQ(machine.memory_total, 1000000U);
  EXPECT_EQ(machine.memory_available, 0U);
}

TEST_F(FakeMachine, VersionOneLimitsHold) {
  write("proc/self/cgroup", "5:memory:/job\n2:cpu,cpuacct:/job\n0::/\n");
  write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "3000000\n");
  write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1000000\n");
  write("sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 250000\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none
  write("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "100000\n");
  write("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
  const auto machine = probe_machine(root_);
  EXPECT_EQ(machine.memory_total, 3000000U);
  EXPECT_EQ(machine.memory_available, 2250000U);
  EXPECT_EQ(machine.cores, 1);
}

TEST_F(FakeMachine, AQuotaOfLessThanTwoCoresAllowsOneThread) {
  const int free_cores = probe_machine(root_).cores;
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_EQ(probe_machine(root_).cores, free_cores);
  write("sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(probe_machine(root_).cores, 1);
  write("sys/fs/cgroup/cpu.max", "199999 100000\n");
  EXPECT_EQ(probe_machine(root_).cores, 1);
}

TEST_F(FakeMachine, InstructionSetsAreWholeWordsOfTheFirstProcessor) {
  write("proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz: fast\nflags\t\t: fpu avx2 fma avx512fx\n\n"
        "processor\t: 1\nmodel name\t: Other\nflags\t\t: avx512_bf16\n");
  const auto machine = probe_machine(root_);
  EXPECT_EQ(machine.cpu_model, "Some CPU @ 2 GHz: fast");
  EXPECT_THAT(machine.instruction_sets, ElementsAre("avx2", "fma"));
  EXPECT_FALSE(machine.has_fast_bf16());
}

TEST_F(FakeMachine, NativeBf16IsKnownOnX86AndArm) {
  for (const std::string line : {"flags : avx512_bf16", "flags : amx_bf16", "Features : bf16"}) {
    write("proc/cpuinfo", line + "\n");
    EXPECT_TRUE(probe_machine(root_).has_fast_bf16()) << line;
  }
}

TEST(ThisMachine, IsSane) {
  const auto machine = probe_machine();
  EXPECT_GT(machine.memory_total, machine.memory_available);
  EXPECT_GT(machine.memory_available, 0U);
  EXPECT_LE(machine.cores, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace wavroute
