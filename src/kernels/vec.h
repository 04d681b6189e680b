// One vector of floats of the instruction set that this file is compiled for, and its operations.
// Included by kernel sources only: each is compiled once per instruction set, with WAVROUTE_ISA
// naming the namespace, so that no two sets share a symbol.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/types.h"

#ifndef WAVROUTE_ISA
#error "WAVROUTE_ISA names the namespace of the instruction set"
#endif

namespace wavroute::kernels::WAVROUTE_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * 4)));
using IntVec = int32_t __attribute__((vector_size(kLanes * 4)));
using UintVec = uint32_t __attribute__((vector_size(kLanes * 4)));
using HalfVec = uint16_t __attribute__((vector_size(kLanes * 2)));

static inline Vec zero() { return Vec{}; }
static inline Vec broadcast(float x) { return x - Vec{}; }

// 0, 1, 2, ..
static inline IntVec lane_numbers() {
  IntVec lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane;
}

static inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

static inline Vec load(const Bf16* p) {
  HalfVec half;
  std::memcpy(&half, p, sizeof half);
#if defined(__AVX512F__)
  const auto wide = reinterpret_cast<UintVec>(
      _mm512_maskz_cvtepu16_epi32(0xFFFF, reinterpret_cast<__m256i>(half)));
#elif defined(__AVX2__)
  const auto wide =
      reinterpret_cast<UintVec>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(half)));
#else
  const UintVec wide = __builtin_convertvector(half, UintVec);
#endif
  return reinterpret_cast<Vec>(wide << 16);
}
// Rounds to nearest even, as every bf16 conversion of libtorch does; a NaN stays one.
static inline void store(Bf16* p, Vec v) {
#if defined(__AVX512BF16__)
  const __m256bh half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
  std::memcpy(p, &half, sizeof half);
#else
  const auto bits = reinterpret_cast<UintVec>(v);
  const UintVec rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const UintVec quiet = (bits >> 16) | 0x40U;
  const IntVec is_number = v == v;
  const UintVec chosen = is_number ? rounded : quiet;
  const HalfVec half = __builtin_convertvector(chosen, HalfVec);
  std::memcpy(p, &half, sizeof half);
#endif
}

// A store of values that are read much later, past the caches if the address is aligned: a whole
// line that is written need not be read first. finish_non_temporal_stores() before another thread
// reads it.
static inline void store_non_temporal(float* p, Vec v) { store(p, v); }
static inline void store_non_temporal(Bf16* p, Vec v) {
#if defined(__AVX512BF16__)
  if ((reinterpret_cast<uintptr_t>(p) & 31U) == 0) {
    const __m256bh half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(half));
    return;
  }
#endif
  store(p, v);
}
static inline void finish_non_temporal_stores() {
#if defined(__AVX512BF16__)
  _mm_sfence();
#endif
}

// The first `count` < kLanes elements; the others read as zero and are not written.
template <typename T>
static inline Vec load_part(const T* p, int64_t count) {
  T padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = p[i];
  return load(padded);
}
template <typename T>
static inline void store_part(T* p, Vec v, int64_t count) {
  T padded[kLanes];
  store(padded, v);
  for (int64_t i = 0; i < count; ++i) p[i] = padded[i];
}

static inline void store_number(float* p, float x) { *p = x; }
static inline void store_number(Bf16* p, float x) { store_part(p, broadcast(x), 1); }

// a * b + c, rounded once where the instruction set can.
static inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
  return reinterpret_cast<Vec>(_mm256_fmadd_ps(
      reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}

static inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// Lane i gets lane i + distance.
template <int distance, int... lane>
static inline Vec shifted(Vec v, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(v, v, ((lane + distance) % kLanes)...);
}

// Sums and maxima over the lanes, always in the same order: halves onto halves. A maximum is
// defined for numbers only: a NaN may hide one.
template <int half = kLanes / 2>
static inline float sum(Vec v) {
  v += shifted<half>(v, std::make_integer_sequence<int, kLanes>{});
  if constexpr (half > 1) return sum<half / 2>(v);
  return v[0];
}
template <int half = kLanes / 2>
static inline float largest(Vec v) {
  v = max(v, shifted<half>(v, std::make_integer_sequence<int, kLanes>{}));
  if constexpr (half > 1) return largest<half / 2>(v);
  return v[0];
}

// Lane by lane, which compiles to one instruction; gcc 12 reports the unused operand inside
// _mm512_sqrt_ps as uninitialised.
static inline Vec sqrt(Vec v) {
  for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}

// 1 / x to 1 unit in the last place for x whose inverse is normal; a NaN stays one. If the
// instruction set has an estimate, that is refined: a division takes several times as long.
static inline Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  const Vec estimate =
      reinterpret_cast<Vec>(_mm512_maskz_rcp14_ps(0xFFFF, reinterpret_cast<__m512>(x)));  // 14 bits
  return fma(estimate, fma(-x, estimate, broadcast(1.0F)), estimate);
#elif defined(__AVX2__)
  Vec y = reinterpret_cast<Vec>(_mm256_rcp_ps(reinterpret_cast<__m256>(x)));  // 11 bits
  for (int i = 0; i < 2; ++i) y = fma(y, fma(-x, y, broadcast(1.0F)), y);
  return y;
#else
  return 1.0F / x;
#endif
}

// e^x to 2 units in the last place for x from -87.3 to 88.3; below, 0; above, the largest power
// of that range; a NaN stays one. x = n ln 2 + r, e^r by the polynomial of Cephes' expf.
static inline Vec exp(Vec x) {
  constexpr float kLowest = -87.33654F, kHighest = 88.37626F;
  Vec bounded = x > kHighest ? broadcast(kHighest) : x;
#if !defined(__AVX512F__)
  const IntVec vanishes = x < kLowest;
  bounded = vanishes ? broadcast(kLowest) : bounded;
#endif
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = fma(bounded, broadcast(1.44269504F), broadcast(kRound));
  const Vec n = shifted - kRound;
  Vec r = fma(n, broadcast(-0.693359375F), bounded);
  r = fma(n, broadcast(2.12194440e-4F), r);
  Vec p = broadcast(1.9875691500e-4F);
  p = fma(p, r, broadcast(1.3981999507e-3F));
  p = fma(p, r, broadcast(8.3334519073e-3F));
  p = fma(p, r, broadcast(4.1665795894e-2F));
  p = fma(p, r, broadcast(1.6666665459e-1F));
  p = fma(p, r, broadcast(5.0000001201e-1F));
  p = fma(p, r * r, r + 1.0F);
#if defined(__AVX512F__)
  const auto wide = reinterpret_cast<__m512>(bounded);
  const __mmask16 stays = _mm512_cmp_ps_mask(wide, _mm512_set1_ps(kLowest), _CMP_NLT_UQ);
  return reinterpret_cast<Vec>(
      _mm512_maskz_scalef_ps(stays, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const UintVec exponent = (reinterpret_cast<UintVec>(shifted) << 23) + (127U << 23);
  const Vec result = p * reinterpret_cast<Vec>(exponent);
  return vanishes ? zero() : result;
#endif
}

// 2^x to 2 units in the last place for x from -126 to 127; below, 0; above, not defined; a NaN
// stays one. x = n + r, 2^r by the polynomial of Cephes' exp2f: a softmax whose scores carry the
// factor log2(e) already needs no reduction by ln 2.
static inline Vec exp2(Vec x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = x + kRound;
  const Vec n = shifted - kRound, r = x - n;
  Vec p = broadcast(1.5353361883e-4F);
  p = fma(p, r, broadcast(1.3398874403e-3F));
  p = fma(p, r, broadcast(9.6184373577e-3F));
  p = fma(p, r, broadcast(5.5503324712e-2F));
  p = fma(p, r, broadcast(2.4022647914e-1F));
  p = fma(p, r, broadcast(6.9314720286e-1F));
  p = fma(p, r, broadcast(1.0F));
#if defined(__AVX512F__)
  const auto wide = reinterpret_cast<__m512>(x);
  const __mmask16 stays = _mm512_cmp_ps_mask(wide, _mm512_set1_ps(-126.0F), _CMP_NLT_UQ);
  return reinterpret_cast<Vec>(
      _mm512_maskz_scalef_ps(stays, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const UintVec exponent = (reinterpret_cast<UintVec>(shifted) << 23) + (127U << 23);
  return x < -126.0F ? zero() : p * reinterpret_cast<Vec>(exponent);
#endif
}

// ln x to 2 units in the last place for normal x > 0; infinity and NaN are unchanged; the rest is
// not defined. x = 2^e m with m from sqrt(1/2) to sqrt(2), ln m by the polynomial of
// Cephes' logf.
static inline Vec log(Vec x) {
  const auto bits = reinterpret_cast<IntVec>(x);
  constexpr int32_t kRootHalf = 0x3F3504F3;  // the bits of sqrt(1/2)
  const IntVec exponent = (bits - kRootHalf) >> 23;
  const Vec e = __builtin_convertvector(exponent, Vec);
  const Vec m = reinterpret_cast<Vec>(bits - (exponent << 23)) - 1.0F;
  Vec p = broadcast(7.0376836292e-2F);
  p = fma(p, m, broadcast(-1.1514610310e-1F));
  p = fma(p, m, broadcast(1.1676998740e-1F));
  p = fma(p, m, broadcast(-1.2420140846e-1F));
  p = fma(p, m, broadcast(1.4249322787e-1F));
  p = fma(p, m, broadcast(-1.6668057665e-1F));
  p = fma(p, m, broadcast(2.0000714765e-1F));
  p = fma(p, m, broadcast(-2.4999993993e-1F));
  p = fma(p, m, broadcast(3.3333331174e-1F));
  const Vec square = m * m;
  p = fma(p * m, square, e * -2.12194440e-4F);
  p = fma(square, broadcast(-0.5F), p);
  const Vec result = fma(e, broadcast(0.693359375F), m + p);
  return x < __builtin_inff() ? result : x;
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
