// Loops over threads. The threads are libtorch's own: at::set_num_threads() sets their number.
#pragma once

#include <cstdint>
#include <functional>

namespace wavroute::ops {

// Calls body(begin, end) for parts of [0, count), from several threads at once. What a part is
// depends on the number of threads: results must not.
void parallel_for(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body);

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
