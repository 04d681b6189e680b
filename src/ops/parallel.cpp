// Compiled with -fopenmp: without it, at::parallel_for is a plain loop.
#include "ops/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace wavroute::ops {

void parallel_for(int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  at::parallel_for(0, count, 1, body);
}

void for_chunks(int64_t tokens, const std::function<void(int64_t, int64_t, int64_t)>& body) {
  parallel_for(chunk_count(tokens), [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kTokensPerChunk;
      body(chunk, begin, std::min(begin + kTokensPerChunk, tokens));
    }
  });
}

}  // namespace wavroute::ops
