#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <span>
#include <stdexcept>
#include <string>

namespace wavroute {
namespace {

// Longer than any wait that succeeds.
constexpr std::chrono::seconds kPatience(60);

// A flag to wait for, set once.
class Door {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  [[nodiscard]] bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

TEST(ThreadPool, CallsEveryChunkOnceWithAThreadOfItsOwn) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 3, 4, 7, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      std::vector<std::atomic<int>> inside(static_cast<size_t>(threads));
      std::atomic<bool> alone = true;
      pool.run(count, [&](int64_t chunk, int thread) {
        if (inside.at(static_cast<size_t>(thread)).fetch_add(1) != 0) alone = false;
        calls.at(static_cast<size_t>(chunk)).fetch_add(1);
        inside[static_cast<size_t>(thread)].fetch_sub(1);
      });
      EXPECT_TRUE(std::ranges::all_of(calls, [](const auto& n) { return n == 1; }));
      EXPECT_TRUE(alone);
    }
  }
}

TEST(ThreadPool, LoopsFollowEachOtherWithoutLosingAChunk) {
  ThreadPool pool(3);
  int64_t total = 0;
  for (int64_t loop = 0; loop < 20000; ++loop) {
    std::atomic<int64_t> sum = 0;
    pool.run(loop % 7, [&](int64_t chunk, int) { sum += chunk + 1; });
    total += sum;
    // In some rounds the other threads have gone to sleep.
    if (loop % 4000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  int64_t expected = 0;
  for (int64_t loop = 0; loop < 20000; ++loop) expected += (loop % 7) * (loop % 7 + 1) / 2;
  EXPECT_EQ(total, expected);
}

TEST(ThreadPool, RunsChunksAtTheSameTime) {
  ThreadPool pool(2);
  Door first, second;
  std::atomic<bool> met = true;
  pool.run(2, [&](int64_t chunk, int) {
    (chunk == 0 ? first : second).open();
    if (!(chunk == 0 ? second : first).wait()) met = false;
  });
  EXPECT_TRUE(met);
}

TEST(ThreadPool, AThreadThatIsHeldUpLeavesItsChunksToTheOthers) {
  ThreadPool pool(2);
  Door others_done;
  std::atomic<int> done = 0;
  std::atomic<bool> left = true;
  constexpr int kCount = 100;
  pool.run(kCount, [&](int64_t, int thread) {
    // The second thread's first chunk waits until all others are done.
    if (thread == 1 && !others_done.wait()) left = false;
    if (++done == kCount - 1) others_done.open();
  });
  EXPECT_TRUE(left);
}

TEST(ThreadPool, WaitsForNobodyWhoHasTakenNothing) {
  Door never, entered;
  std::atomic<bool> late = false;
  {
    // The other thread is still in its start function.
    ThreadPool pool(2, [&](int) {
      entered.open();
      late = !never.wait();
    });
    EXPECT_TRUE(entered.wait());
    int calls = 0;
    pool.run(100, [&](int64_t, int thread) { calls += thread == 0; });
    EXPECT_EQ(calls, 100);
    never.open();
  }
  EXPECT_FALSE(late);
}

TEST(ThreadPool, ThrowsWhatABodyThrowsAndGoesOnAfterwards) {
  ThreadPool pool(3);
  for (int loop = 0; loop < 100; ++loop) {
    try {
      pool.run(10, [](int64_t chunk, int) {
        if (chunk == 7) throw std::runtime_error("seven");
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()), "seven");
    }
    std::atomic<int> calls = 0;
    pool.run(10, [&](int64_t, int) { ++calls; });
    EXPECT_EQ(calls, 10);
  }
}

// Adjacent chunks belong to one thread, whose cache has them, unless it is delayed.
TEST(ThreadPool, AThreadTakesItsOwnChunksInOrder) {
  ThreadPool pool(2);
  std::vector<int64_t> own;
  Door first;
  pool.run(10, [&](int64_t chunk, int thread) {
    if (thread == 1) static_cast<void>(first.wait());  // its other chunks are taken
    if (thread == 1) return;
    own.push_back(chunk);
    if (own.size() == 9) first.open();
  });
  ASSERT_GE(own.size(), 9U);
  EXPECT_TRUE(std::ranges::equal(std::span(own).first(5), std::vector<int64_t>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace wavroute
