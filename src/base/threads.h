// How many threads a command works with.
#pragma once

#include <cstdint>
#include <string>

#include "base/machine.h"

namespace wavroute {

// `wanted`, or for 0 what the environment says (OMP_NUM_THREADS, at most OMP_THREAD_LIMIT), or
// without that the number of cores that this process may use. UserError that names the limit for a
// number far beyond them, or a negative one.
[[nodiscard]] int threads_to_use(int64_t wanted, const Machine& machine);

}  // namespace wavroute
