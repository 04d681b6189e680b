// The memory of a residual stream in a pass on our kernels, for the memory plan.
#pragma once

#include <cstdint>

#include "wavroute/residual.h"

namespace wavroute {

struct StreamSizes {
  int64_t width = 0;
  int64_t sublayers = 0;
  int64_t segment =
      0;              // sublayers that are kept, or recomputed, together; all of them: no snapshots
  double narrow = 4;  // bytes of a number in the compute type
};

// Bytes per token.
struct StreamMemory {
  double training = 0;    // at the peak of a pass with its backward
  double evaluation = 0;  // of a pass that keeps nothing
};

[[nodiscard]] StreamMemory stream_memory(const Residual& residual, const StreamSizes& sizes);

}  // namespace wavroute
