// Types that the kernels and their callers share. No kernel knows a framework.
#pragma once

#include <cstdint>

namespace wavroute::kernels {

// Storage of a bfloat16: the upper half of a float. All arithmetic is in float.
struct Bf16 {
  uint16_t bits;
};

}  // namespace wavroute::kernels
