// Loops over threads.
#include "ops/parallel.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "ops/spin_time.h"

namespace wavroute::ops {
namespace {

// As many threads as `threads` until the end of the scope.
class Threads {
 public:
  explicit Threads(int threads) : before_(at::get_num_threads()) { at::set_num_threads(threads); }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

// Waits in each of `count` bodies until all have started: with fewer threads it would time out.
class Meeting {
 public:
  explicit Meeting(int count) : missing_(count) {}
  [[nodiscard]] bool comes_about() {
    std::unique_lock lock(mutex_);
    if (--missing_ == 0) changed_.notify_all();
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return missing_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int missing_;
};

TEST(ParallelFor, UsesAsManyThreadsAsLibtorchWouldAndKnowsThemByIndex) {
  for (const int threads : {3, 2}) {
    const Threads some(threads);
    Meeting meeting(threads);
    std::mutex mutex;
    std::set<std::thread::id> ids;
    std::set<int> indices;
    bool met = true;
    for_chunks(
        threads,
        [&](int64_t, int64_t, int64_t) {
          const bool all_here = meeting.comes_about();
          const std::lock_guard lock(mutex);
          met = met && all_here;
          ids.insert(std::this_thread::get_id());
          indices.insert(thread_index());
        },
        1);
    EXPECT_TRUE(met);
    EXPECT_EQ(ids.size(), static_cast<size_t>(threads));
    EXPECT_EQ(*indices.begin(), 0);
    EXPECT_EQ(*indices.rbegin(), threads - 1);
    EXPECT_EQ(thread_index(), 0);
  }
}

// A product within a body must not start threads of its own, nor depend on how many there are.
TEST(ParallelFor, ABodysCallsOfLibtorchStayOnItsThread) {
  for (const int threads : {2, 1}) {
    const Threads some(threads);
    std::atomic<int> most = 0;
    parallel_for(100,
                 [&](int64_t, int64_t) { most = std::max(most.load(), at::get_num_threads()); });
    EXPECT_EQ(most, 1);
    EXPECT_EQ(at::get_num_threads(), threads);
  }
}

// Whoever calls it has scratch memory for at::get_num_threads() threads: for one.
TEST(ParallelFor, ALoopWithinABodyIsAPlainOneWithAnIndexOfItsOwn) {
  const Threads two(2);
  Meeting meeting(2);
  std::atomic<int> calls = 0;
  std::atomic<bool> same = true;
  for_chunks(
      2,
      [&](int64_t, int64_t, int64_t) {
        if (!meeting.comes_about()) same = false;
        const auto outer = std::this_thread::get_id();
        const int index = thread_index();
        parallel_for(40, [&](int64_t begin, int64_t end) {
          calls += static_cast<int>(end - begin);
          const bool fits = thread_index() < at::get_num_threads();
          if (std::this_thread::get_id() != outer || !fits) same = false;
        });
        if (thread_index() != index) same = false;
      },
      1);
  EXPECT_EQ(calls, 80);
  EXPECT_TRUE(same);
}

TEST(ParallelFor, LoopsOfSeveralThreadsDoNotDisturbEachOther) {
  const Threads two(2);
  std::atomic<bool> right = true;
  const auto loops = [&] {
    for (int loop = 0; loop < 2000; ++loop) {
      std::atomic<int64_t> sum = 0;
      for_chunks(
          5, [&](int64_t chunk, int64_t, int64_t) { sum += chunk; }, 1);
      if (sum != 10) right = false;
    }
  };
  std::thread other(loops);
  loops();
  other.join();
  EXPECT_TRUE(right);
}

TEST(ParallelFor, ThrowsWhatABodyThrows) {
  const Threads two(2);
  EXPECT_THROW(parallel_for(100, [](int64_t, int64_t) { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_EQ(at::get_num_threads(), 2);
}

// A fork has one thread: the pool's other threads exist only in the parent.
TEST(ParallelFor, WorksInAProcessThatWasForked) {
  const Threads two(2);
  std::atomic<int64_t> sum = 0;
  const auto add = [&] {
    parallel_for(1000, [&](int64_t begin, int64_t end) { sum += end - begin; });
  };
  add();
  const pid_t child = fork();
  if (child == 0) {
    add();
    _exit(sum == 2000 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(ParallelFor, NoPartIsShorterThanAskedAndTheyDifferByOne) {
  const Threads two(2);
  for (const int64_t count : {1, 15, 16, 17, 100, 1000}) {
    std::mutex mutex;
    std::map<int64_t, int64_t> parts;
    parallel_for(
        count,
        [&](int64_t begin, int64_t end) {
          const std::lock_guard lock(mutex);
          parts[begin] = end;
        },
        16);
    int64_t shortest = count, longest = 0;
    for (const auto& [begin, end] : parts) {
      shortest = std::min(shortest, end - begin), longest = std::max(longest, end - begin);
    }
    EXPECT_GE(shortest, std::min<int64_t>(count, 16));
    EXPECT_LE(longest - shortest, 1);
  }
}

TEST(SpinTime, IsTheUsersWhereOpenMpsSettingsSayOne) {
  using std::chrono::microseconds;
  const microseconds ours = spin_time(nullptr, nullptr, nullptr);
  EXPECT_GT(ours.count(), 0);
  EXPECT_EQ(spin_time("1000", "1000", nullptr), ours);  // the command's own setting
  EXPECT_EQ(spin_time("x", nullptr, nullptr), ours);
  EXPECT_EQ(spin_time("0", nullptr, nullptr).count(), 0);
  EXPECT_EQ(spin_time("0", "1000", nullptr).count(), 0);
  EXPECT_EQ(spin_time("0", nullptr, "active").count(), 0);  // the count goes first
  EXPECT_EQ(spin_time(nullptr, nullptr, "PASSIVE").count(), 0);
  EXPECT_GT(spin_time(nullptr, nullptr, "active"), std::chrono::minutes(1));
  EXPECT_GT(spin_time("infinite", nullptr, nullptr), std::chrono::hours(1));
  EXPECT_EQ(spin_time("30k", nullptr, nullptr), spin_time("30000", nullptr, nullptr));
  EXPECT_GT(spin_time("30k", nullptr, nullptr), ours);
}

TEST(ParallelFor, CoversEveryNumberOnce) {
  for (const int64_t count : {0, 1, 2, 7, 1000}) {
    std::vector<int> seen(static_cast<size_t>(count));
    parallel_for(count, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    EXPECT_EQ(std::ranges::count(seen, 1), count);
  }
}

TEST(ForChunks, CutsTheSameChunksWithAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3}) {
    const Threads some(threads);
    const int64_t tokens = 2 * kTokensPerChunk + 5;
    std::mutex mutex;
    std::set<std::vector<int64_t>> chunks;
    for_chunks(tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
      const std::lock_guard lock(mutex);
      chunks.insert({chunk, begin, end});
    });
    const std::set<std::vector<int64_t>> expected = {{0, 0, kTokensPerChunk},
                                                     {1, kTokensPerChunk, 2 * kTokensPerChunk},
                                                     {2, 2 * kTokensPerChunk, tokens}};
    EXPECT_EQ(chunks, expected) << threads << " threads";
  }
}

}  // namespace
}  // namespace wavroute::ops
