// How long threads that wait spin.
#pragma once

#include <chrono>

namespace wavroute::ops {

// How long a thread of the pool spins before it sleeps, where GOMP_SPINCOUNT is `count`,
// WAVROUTE_SPINCOUNT `ours` (what the command itself set the former to: nothing that the user said)
// and OMP_WAIT_POLICY `policy`; null where one is not set.
[[nodiscard]] std::chrono::microseconds spin_time(const char* count, const char* ours,
                                                  const char* policy);

}  // namespace wavroute::ops
