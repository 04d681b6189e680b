// Runs on a GPU. `new` takes memory that host and GPU share, so that the tests' vectors are the
// kernels' as they are.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "tests/kernels/cuda/runs.h"

namespace {

void require(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::abort();
}

// Small pieces share allocations of the driver, which are of whole pages, and are not given back.
constexpr size_t kAlignment = 256, kSlab = size_t{4} << 20, kLarge = size_t{64} << 10;

void* take(size_t bytes) {
  void* memory = nullptr;
  require(cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal));
  return memory;
}

void* take_piece(size_t bytes) {
  static char* slab = nullptr;
  static size_t left = 0;
  if (bytes > left) {
    slab = static_cast<char*>(take(kSlab));
    left = kSlab;
  }
  char* const piece = slab;
  slab += bytes;
  left -= bytes;
  return piece;
}

// Before each piece, how it was taken.
void* allocate(size_t bytes) {
  const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
  auto* const memory = static_cast<char*>(whole < kLarge ? take_piece(whole) : take(whole));
  *reinterpret_cast<bool*>(memory) = whole >= kLarge;
  return memory + kAlignment;
}
void release(void* memory) noexcept {
  if (memory == nullptr) return;
  char* const begin = static_cast<char*>(memory) - kAlignment;
  if (*reinterpret_cast<bool*>(begin)) cudaFree(begin);  // at the end the driver may be gone
}

}  // namespace

void* operator new(size_t bytes) { return allocate(bytes); }
void* operator new[](size_t bytes) { return allocate(bytes); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t) noexcept { release(memory); }

namespace wavroute::kernels::cuda {

void run_in_order(emulator::Order) {}
void wait_for_runs() { require(cudaDeviceSynchronize()); }

void* large_zeros(size_t bytes) {
  void* const zeros = take(bytes);
  require(cudaMemset(zeros, 0, bytes));
  return zeros;
}
void free_zeros(void* zeros, size_t) { require(cudaFree(zeros)); }

}  // namespace wavroute::kernels::cuda
