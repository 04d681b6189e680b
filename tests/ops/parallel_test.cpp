// Loops over threads.
#include "ops/parallel.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace wavroute::ops {
namespace {

// Fails where parallel.cpp is compiled without OpenMP: at::parallel_for is a plain loop then.
TEST(ParallelFor, SplitsItsWorkOverThreads) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  int64_t parts = 0;
  parallel_for(1000, [&](int64_t, int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
    ++parts;
  });
  at::set_num_threads(before);
  EXPECT_EQ(parts, 2);
  EXPECT_EQ(threads.size(), 2U);
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
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
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
  at::set_num_threads(before);
}

}  // namespace
}  // namespace wavroute::ops
