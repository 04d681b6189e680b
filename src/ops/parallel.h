// Loops over threads: as many as at::get_num_threads() says, of a pool of our own
// (base/thread_pool.h).
#pragma once

#include <cstdint>
#include <functional>

namespace wavroute::ops {

// Calls body(begin, end) for parts of [0, count), from several threads at once. What a part is
// depends on the number of threads, and who gets it on what else the machine does: results must
// not. No part is shorter than `least`, unless it is all there is. What a body calls of libtorch
// and MKL runs on the thread of the body alone. A loop within a body, or beside a loop of another
// thread, is a plain one.
void parallel_for(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body,
                  int64_t least = 1);

// Within a body: the index of its thread, below at::get_num_threads() of who called the innermost
// loop: 0 in a loop within a body. Else 0.
[[nodiscard]] int thread_index();

// Tokens that share one partial sum: fixed, so that sums over tokens don't depend on threads.
inline constexpr int64_t kTokensPerChunk = 32;

[[nodiscard]] constexpr int64_t chunk_count(int64_t count, int64_t per_chunk = kTokensPerChunk) {
  return (count + per_chunk - 1) / per_chunk;
}

// Calls body(chunk, begin, end) for every chunk of [0, count).
void for_chunks(int64_t count,
                const std::function<void(int64_t chunk, int64_t begin, int64_t end)>& body,
                int64_t per_chunk = kTokensPerChunk);

}  // namespace wavroute::ops
