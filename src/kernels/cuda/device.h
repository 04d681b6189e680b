// What kernels for GPUs are written in: a thread's place, shared memory, barriers, shuffles, packs
// of numbers. nvcc gives them the device's meaning, any other compiler that of emulator.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/cuda/stream_handle.h"
#include "kernels/types.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#define WAVROUTE_KERNEL __global__ void
#define WAVROUTE_DEVICE __device__ __forceinline__
#define WAVROUTE_UNROLL _Pragma("unroll")
#else
#include <bit>
#include <cmath>

#include "kernels/cuda/emulator.h"
#define WAVROUTE_KERNEL inline void
#define WAVROUTE_DEVICE inline
#define WAVROUTE_UNROLL
#endif

namespace wavroute::kernels::cuda {

inline constexpr int kWarp = 32;           // threads that run in step
inline constexpr int kMostThreads = 1024;  // of a block

// The blocks of a launch, in one dimension, and the threads of each, whole warps.
struct Shape {
  int64_t blocks = 0;
  int threads = 0;
  size_t shared_bytes = 0;
};

// The upper half of a NaN, which its lower half alone might have made one. Other numbers are
// rounded to the nearest bf16, halves to the even one.
WAVROUTE_DEVICE uint16_t quiet_nan(uint32_t bits) {
  return static_cast<uint16_t>(bits >> 16 | 0x40U);
}

#if defined(__CUDACC__)

WAVROUTE_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
WAVROUTE_DEVICE int threads() { return static_cast<int>(blockDim.x); }
WAVROUTE_DEVICE int64_t block() { return blockIdx.x; }
WAVROUTE_DEVICE int64_t blocks() { return gridDim.x; }
WAVROUTE_DEVICE void barrier() { __syncthreads(); }
template <typename T>
WAVROUTE_DEVICE T* shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}
// Adds to each number of x that of the lane whose own number differs in the bits `mask`; all lanes
// of the warp call it.
template <int n, typename T>
WAVROUTE_DEVICE void add_from_lane(T (&x)[n], int mask) {
  WAVROUTE_UNROLL for (int k = 0; k < n; ++k) x[k] += __shfl_xor_sync(0xFFFFFFFFU, x[k], mask);
}
// x of that lane.
template <typename T>
WAVROUTE_DEVICE T from_lane(T x, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFU, x, mask);
}
WAVROUTE_DEVICE float to_float(float x) { return x; }
WAVROUTE_DEVICE float to_float(Bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
WAVROUTE_DEVICE void put(float x, float& to) { to = x; }
WAVROUTE_DEVICE void put(float x, Bf16& to) {
  to.bits = x == x ? __bfloat16_as_ushort(__float2bfloat16_rn(x)) : quiet_nan(__float_as_uint(x));
}
WAVROUTE_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
WAVROUTE_DEVICE float root(float x) { return __fsqrt_rn(x); }
WAVROUTE_DEVICE float exponential(float x) { return expf(x); }
WAVROUTE_DEVICE float logarithm(float x) { return logf(x); }
WAVROUTE_DEVICE float infinity() { return __int_as_float(0x7F800000); }

// Starts a kernel on a stream; throws std::runtime_error where the device refuses it.
template <typename... Formal, typename... Actual>
void launch(void (*kernel)(Formal...), const Shape& shape, Stream stream, Actual... actual) {
  if (shape.blocks == 0) return;
  kernel<<<static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.threads),
           shape.shared_bytes, stream>>>(actual...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

#else

WAVROUTE_DEVICE int thread() { return emulator::thread(); }
WAVROUTE_DEVICE int threads() { return emulator::threads(); }
WAVROUTE_DEVICE int64_t block() { return emulator::block(); }
WAVROUTE_DEVICE int64_t blocks() { return emulator::blocks(); }
WAVROUTE_DEVICE void barrier() { emulator::barrier(); }
template <typename T>
WAVROUTE_DEVICE T* shared() {
  return static_cast<T*>(emulator::shared());
}
template <int n, typename T>
WAVROUTE_DEVICE void add_from_lane(T (&x)[n], int mask) {
  T other[n];
  emulator::exchange(x, other, sizeof x, thread() % kWarp ^ mask);
  for (int k = 0; k < n; ++k) x[k] += other[k];
}
template <typename T>
WAVROUTE_DEVICE T from_lane(T x, int mask) {
  T other;
  emulator::exchange(&x, &other, sizeof x, thread() % kWarp ^ mask);
  return other;
}
WAVROUTE_DEVICE float to_float(float x) { return x; }
WAVROUTE_DEVICE float to_float(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}
WAVROUTE_DEVICE void put(float x, float& to) { to = x; }
WAVROUTE_DEVICE void put(float x, Bf16& to) {
  const auto bits = std::bit_cast<uint32_t>(x);
  to.bits =
      x == x ? static_cast<uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16) : quiet_nan(bits);
}
WAVROUTE_DEVICE float fused(float a, float b, float c) { return std::fma(a, b, c); }
WAVROUTE_DEVICE float root(float x) { return std::sqrt(x); }
WAVROUTE_DEVICE float exponential(float x) { return std::exp(x); }
WAVROUTE_DEVICE float logarithm(float x) { return std::log(x); }
WAVROUTE_DEVICE float infinity() { return std::bit_cast<float>(0x7F800000U); }

template <typename... Formal, typename... Actual>
void launch(void (*kernel)(Formal...), const Shape& shape, Stream /*stream*/, Actual... actual) {
  const auto make = [=] {
    emulator::run(shape.blocks, shape.threads, shape.shared_bytes, [&] { kernel(actual...); });
  };
  if (emulator::is_recorded()) {
    emulator::give_to_recorder(make);
  } else {
    make();
  }
}

#endif

// n numbers that are read and written at once; their address is a multiple of their size.
template <typename T, int n>
struct alignas(n * sizeof(T)) Pack {
  T at[n];
};
template <int n, typename T>
WAVROUTE_DEVICE void load(const T* from, float (&to)[n]) {
  const auto pack = *reinterpret_cast<const Pack<T, n>*>(from);
  for (int k = 0; k < n; ++k) to[k] = to_float(pack.at[k]);
}
// Of a vector from column c on; ones where there is none.
template <int n>
WAVROUTE_DEVICE void load_or_ones(const float* vector, int64_t c, float (&to)[n]) {
  if (vector != nullptr) return load<n>(vector + c, to);
  for (int k = 0; k < n; ++k) to[k] = 1.0F;
}
template <int n, typename T>
WAVROUTE_DEVICE void store(const float (&from)[n], T* to) {
  Pack<T, n> pack;
  for (int k = 0; k < n; ++k) put(from[k], pack.at[k]);
  *reinterpret_cast<Pack<T, n>*>(to) = pack;
}

}  // namespace wavroute::kernels::cuda
