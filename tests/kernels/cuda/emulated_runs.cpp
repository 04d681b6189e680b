#include <sys/mman.h>

#include <new>

#include "tests/kernels/cuda/runs.h"

namespace wavroute::kernels::cuda {

void run_in_order(emulator::Order order) { emulator::set_order(order); }
void wait_for_runs() {}

void* large_zeros(size_t bytes) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const zeros = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (zeros == MAP_FAILED) throw std::bad_alloc();
  return zeros;
}
void free_zeros(void* zeros, size_t bytes) { munmap(zeros, bytes); }

}  // namespace wavroute::kernels::cuda
