// How the kernels of the running sums walk over rows, and which sums have rows of their own.
// Included by route_running.cpp alone.
#pragma once

#include "kernels/route.h"
#include "kernels/sweep.h"
#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// A token's rows are walked two or three times and stay in L1 in between. A few tokens go through
// each walk together, so that the scalar work between two walks of one hides behind the others.
constexpr int kTogether = 2;

// Calls visit(c, lanes, sums) for the vectors of a row of d. Two sets of sums take turns, so that
// an addition needn't wait for the one before it; the second is added to the first at the end.
// `visit` must be inlined wherever it is called, and its loops over sums unrolled, or the sums
// would live in memory.
template <typename Sums, typename Visit>
inline Sums walk(int64_t d, const Visit& visit) {
  Sums even, odd;
  int64_t c = 0;
  for (; c + 2 * kLanes <= d; c += 2 * kLanes) {
    visit(c, WholeVector{}, even);
    visit(c + kLanes, WholeVector{}, odd);
  }
  for (; c < d; c += kLanes) visit(c, PartVector{d - c < kLanes ? d - c : kLanes}, even);
  even.add(odd);
  return even;
}
struct NoSums {
  void add(const NoSums& /*other*/) {}
};

// A row that may be absent: then one vector stands for all of it, and the loops need no branch.
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
inline Row<const T> row_or_zeros(const T* rows, int64_t offset) {
  return rows != nullptr ? Row<const T>{rows + offset, -1} : Row<const T>{kZeros<T>, 0};
}
// [d], the same for every token.
inline Row<const float> row_or_ones(const float* row) {
  return row != nullptr ? Row<const float>{row, -1} : Row<const float>{kOnes, 0};
}
inline Row<float> row_or_nowhere(float* rows, int64_t offset, float* nowhere) {
  return rows != nullptr ? Row<float>{rows + offset, -1} : Row<float>{nowhere, 0};
}

inline float inverse_root(float x) { return x > 0.0F ? 1.0F / __builtin_sqrtf(x) : 0.0F; }

// The sums that have values of their own: S, and the details that don't equal it.
struct Distinct {
  int count = 0;
  int sum[kMostRunning] = {};    // [count] the sum whose values they are
  int place[kMostRunning] = {};  // [running] where the values of a sum are, 0 where they are S's
};

// `changes`: an update is written or undone, so that a sum that is not stored equals S. Without
// one, it may as well be read from `in`.
template <typename Sum>
inline Distinct distinct_sums(const Sum* sums, int running, bool changes) {
  Distinct distinct;
  for (int s = 0; s < running; ++s) {
    const bool equals_first = sums[s].out == nullptr && (changes || sums[s].in == nullptr);
    if (s > 0 && equals_first) continue;
    distinct.place[s] = distinct.count;
    distinct.sum[distinct.count++] = s;
  }
  return distinct;
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
