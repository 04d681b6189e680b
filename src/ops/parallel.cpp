// Compiled with -fopenmp: without it, at::parallel_for is a plain loop.
#include "ops/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace wavroute::ops {

void parallel_for(int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  at::parallel_for(0, count, 1, body);
}

void for_chunks(int64_t count, const std::function<void(int64_t, int64_t, int64_t)>& body,
                int64_t per_chunk) {
  parallel_for(chunk_count(count, per_chunk), [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * per_chunk;
      body(chunk, begin, std::min(begin + per_chunk, count));
    }
  });
}

}  // namespace wavroute::ops
