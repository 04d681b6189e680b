// How the kernels of the running block pass over rows, and how its parts become sums.
// Included by route_running.cpp only.
#pragma once

#include "kernels/route.h"
#include "kernels/sweep.h"
#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// A token's rows are read in two or three passes and stay in the L1 cache in between. A few tokens
// go through each pass together, so that the scalar work of one between two passes overlaps with
// the others.
constexpr int kTogether = 2;

template <typename Sums, typename Visit>
inline Sums walk_pairs(int64_t end, const Visit& visit) {
  Sums even, odd;
  for (int64_t c = 0; c < end; c += 2 * kLanes) {
    visit(c, WholeVector{}, even);
    visit(c + kLanes, WholeVector{}, odd);
  }
  even.add(odd);
  return even;
}
template <typename Sums, typename Visit>
[[gnu::noinline]] Sums walk_rest(int64_t begin, int64_t end, const Visit& visit) {
  Sums sums;
  for (int64_t c = begin; c < end; c += kLanes) {
    visit(c, PartVector{end - c < kLanes ? end - c : kLanes}, sums);
  }
  return sums;
}
// Calls visit(c, lanes, sums) for the vectors of a row of d. Two sets of sums take turns, so that
// an addition needn't wait for the one before it; the second is added to the first at the end.
// `visit` must be inlined wherever it is called, and its loops over sums unrolled, otherwise the
// sums would be kept in memory.
template <typename Sums, typename Visit>
inline Sums walk(int64_t d, const Visit& visit) {
  const int64_t pairs = d / (2 * kLanes) * (2 * kLanes);
  Sums sums = walk_pairs<Sums>(pairs, visit);
  if (pairs < d) sums.add(walk_rest<Sums>(pairs, d, visit));
  return sums;
}
struct NoSums {
  void add(const NoSums& /*other*/) {}
};

// A row that may be absent: a single vector then stands for all of it, and the loops need no
// branch.
template <typename T>
struct Row {
  T* start;
  int64_t mask;  // -1, or 0 for an absent row
  T* at(int64_t c) const { return start + (c & mask); }
};
template <typename T>
constexpr T kZeros[kLanes] = {};
constexpr float kOnes[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static_assert(sizeof kOnes >= kLanes * sizeof(float));

template <typename T>
inline Row<const T> row_or_zeros(const Grid<const T>& rows, int64_t t) {
  return rows ? Row<const T>{rows[t], -1} : Row<const T>{kZeros<T>, 0};
}
// [d], the same for every token.
inline Row<const float> row_or_ones(const float* row) {
  return row != nullptr ? Row<const float>{row, -1} : Row<const float>{kOnes, 0};
}

inline float inverse_root(float x) { return x > 0.0F ? 1.0F / __builtin_sqrtf(x) : 0.0F; }

// The update of one token, added to its part.
template <typename C>
inline void write_part(const PartWrite<C>& write, int64_t d, int64_t t) {
  if (!write.u) return;
  const Row<const float> in = row_or_zeros(write.in, t);
  const C* u = write.u[t];
  float* out = write.out[t];
  walk<NoSums>(
      d, [&](int64_t c, auto lanes, NoSums&) __attribute__((always_inline)) {
        lanes.store(out + c, lanes.load(in.at(c)) + lanes.load(u + c));
      });
}

// The forms of one token's parts; kParts: 0, 1, 2 or 4. kWhole: every part has a row.
template <int kParts, bool kWhole>
struct FormsOf {
  static constexpr int kCount = form_count(kParts);
  Row<const float> part[kParts + 1];
  Vec load(int k, int64_t c, WholeVector lanes) const {
    return lanes.load(kWhole ? part[k].start + c : part[k].at(c));
  }
  Vec load(int k, int64_t c, PartVector lanes) const { return lanes.load(part[k].at(c)); }

  // After the write, if there is one.
  template <typename C>
  FormsOf(const Parts& parts, const PartWrite<C>& write, int64_t t) {
#pragma GCC unroll 4
    for (int k = 0; k < kParts; ++k) {
      const bool written = write.u && write.part == k;
      part[k] = row_or_zeros<float>(written ? write.out : parts.rows[k], t);
    }
  }
  FormsOf(const Parts& parts, int64_t t) : FormsOf(parts, PartWrite<float>{}, t) {}

  template <typename Lanes>
  void at(int64_t c, Lanes lanes, Vec (&form)[kCount + 1]) const {
    if constexpr (kParts == 1) {
      form[0] = load(0, c, lanes);
    } else if constexpr (kParts == 2) {
      const Vec a = load(0, c, lanes), b = load(1, c, lanes);
      form[0] = a + b;
      form[1] = a - b;
    } else if constexpr (kParts == 4) {
      const Vec a = load(0, c, lanes), b = load(1, c, lanes);
      const Vec e = load(2, c, lanes), f = load(3, c, lanes);
      const Vec first = a + b, second = e + f;
      form[0] = first + second;
      form[1] = (a - b) + (e - f);
      form[2] = first - second;
    }
  }
};

template <int kCount, bool kAll>
struct PartCount {
  static constexpr int value = kCount;
  static constexpr bool whole = kAll;
};
// Calls body(PartCount<how many, all have a row>{}), after the write if there is one.
template <typename Body>
inline void with_parts(const Parts& parts, int written, const Body& body) {
  bool whole = true;
  for (int k = 0; k < parts.count; ++k) whole = whole && (k == written || parts.rows[k]);
  switch (parts.count) {
    case 0:
      return body(PartCount<0, true>{});
    case 1:
      return whole ? body(PartCount<1, true>{}) : body(PartCount<1, false>{});
    case 2:
      return whole ? body(PartCount<2, true>{}) : body(PartCount<2, false>{});
    default:
      return whole ? body(PartCount<4, true>{}) : body(PartCount<4, false>{});
  }
}
template <typename C>
int written_part(const PartWrite<C>& write) {
  return write.u ? write.part : -1;
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
