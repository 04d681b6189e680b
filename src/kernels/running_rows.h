// How the kernels of the running block walk over rows, and how its parts become sums.
// Included by route_running.cpp alone.
#pragma once

#include "kernels/route.h"
#include "kernels/sweep.h"
#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// A token's rows are walked two or three times and stay in L1 in between. A few tokens go through
// each walk together, so that the scalar work between two walks of one hides behind the others,
// and the first walk of a token asks for the rows of the next few.
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

// Asks for what will be read a group of tokens later.
template <typename T>
inline void ask_ahead(const T* p, int64_t d) {
  __builtin_prefetch(p + kTogether * d);
}

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

inline float inverse_root(float x) { return x > 0.0F ? 1.0F / __builtin_sqrtf(x) : 0.0F; }

// The update of one token, added to its part.
template <typename C>
inline void write_part(const PartWrite<C>& write, int64_t d, int64_t t) {
  if (write.u == nullptr) return;
  const Row<const float> in = row_or_zeros(write.in, t * d);
  const C* u = write.u + t * d;
  float* out = write.out + t * d;
  walk<NoSums>(
      d, [&](int64_t c, auto lanes, NoSums&) __attribute__((always_inline)) {
        ask_ahead(in.at(c), d);
        ask_ahead(u + c, d);
        lanes.store(out + c, lanes.load(in.at(c)) + lanes.load(u + c));
      });
}

// The forms of one token's parts; kParts: 0, 1, 2 or 4.
template <int kParts>
struct FormsOf {
  static constexpr int kCount = form_count(kParts);
  Row<const float> part[kParts + 1];

  // After the write, if there is one.
  template <typename C>
  FormsOf(const Parts& parts, const PartWrite<C>& write, int64_t offset) {
#pragma GCC unroll 4
    for (int k = 0; k < kParts; ++k) {
      const bool written = write.u != nullptr && write.part == k;
      part[k] = row_or_zeros<float>(written ? write.out : parts.row[k], offset);
    }
  }
  FormsOf(const Parts& parts, int64_t offset) : FormsOf(parts, PartWrite<float>{}, offset) {}

  void ask(int64_t c, int64_t d) const {
#pragma GCC unroll 4
    for (int k = 0; k < kParts; ++k) ask_ahead(part[k].at(c), d);
  }
  template <typename Lanes>
  void at(int64_t c, Lanes lanes, Vec (&form)[kCount + 1]) const {
    if constexpr (kParts == 1) {
      form[0] = lanes.load(part[0].at(c));
    } else if constexpr (kParts == 2) {
      const Vec a = lanes.load(part[0].at(c)), b = lanes.load(part[1].at(c));
      form[0] = a + b;
      form[1] = a - b;
    } else if constexpr (kParts == 4) {
      const Vec a = lanes.load(part[0].at(c)), b = lanes.load(part[1].at(c));
      const Vec e = lanes.load(part[2].at(c)), f = lanes.load(part[3].at(c));
      const Vec first = a + b, second = e + f;
      form[0] = first + second;
      form[1] = (a - b) + (e - f);
      form[2] = first - second;
    }
  }
};

// Calls body(Known count{}) for the number of parts.
template <int kCount>
struct PartCount {
  static constexpr int value = kCount;
};
template <typename Body>
inline void with_parts(int count, const Body& body) {
  switch (count) {
    case 0:
      return body(PartCount<0>{});
    case 1:
      return body(PartCount<1>{});
    case 2:
      return body(PartCount<2>{});
    default:
      return body(PartCount<4>{});
  }
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
