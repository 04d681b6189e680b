// Where the tests of the kernels for GPUs run: on the emulator (emulated_runs.cpp), or on a GPU,
// whose memory all of the program then lies in (gpu_runs.cpp).
#pragma once

#include "kernels/cuda/emulator.h"

namespace wavroute::kernels::cuda {

// Launches from here on are made with the threads of a block in this order, where it can be chosen.
void run_in_order(emulator::Order order);
// Until the launches so far have been done.
void wait_for_runs();

// Zeros that kernels reach, without the cost of writing them where nobody does; until free_zeros.
[[nodiscard]] void* large_zeros(size_t bytes);
void free_zeros(void* zeros, size_t bytes);

// The same for the launches of a scope.
class Runs {
 public:
  explicit Runs(emulator::Order order) { run_in_order(order); }
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;
  ~Runs() { wait_for_runs(); }
};

}  // namespace wavroute::kernels::cuda
