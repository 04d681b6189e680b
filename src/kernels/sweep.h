// A pass over the columns of a row: whole vectors first, then what is left of the row, by the same
// arithmetic. Included by kernel sources only.
#pragma once

#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {

struct WholeVector {
  template <typename T>
  Vec load(const T* p) const {
    return WAVROUTE_ISA::load(p);
  }
  template <typename T>
  Vec load(const T* p, float /*absent*/) const {
    return WAVROUTE_ISA::load(p);
  }
  template <typename T>
  void store(T* p, Vec v) const {
    WAVROUTE_ISA::store(p, v);
  }
  template <typename T>
  void store_non_temporal(T* p, Vec v) const {
    WAVROUTE_ISA::store_non_temporal(p, v);
  }
};

// The first `count` < kLanes elements; the others read as zero, or as `absent`, and are not
// written.
struct PartVector {
  int64_t count;
  template <typename T>
  Vec load(const T* p) const {
    return load_part(p, count);
  }
  template <typename T>
  Vec load(const T* p, float absent) const {
    Vec v = load_part(p, count);
    for (int64_t i = count; i < kLanes; ++i) v[i] = absent;
    return v;
  }
  template <typename T>
  void store(T* p, Vec v) const {
    store_part(p, v, count);
  }
  template <typename T>
  void store_non_temporal(T* p, Vec v) const {
    store_part(p, v, count);
  }
};

// Calls body(i, lanes) for the vectors that start at columns i = begin, begin + kLanes, ...:
// lanes.load(p + i) and lanes.store(p + i, v) touch no column from `end` on.
template <typename Body>
static inline void sweep(int64_t begin, int64_t end, Body body) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) body(i, WholeVector{});
  if (i < end) body(i, PartVector{end - i});
}
template <typename Body>
static inline void sweep(int64_t columns, Body body) {
  sweep(0, columns, body);
}

// A condition known at compile time, so that no inner loop tests it.
template <bool known>
struct Known {
  static constexpr bool value = known;
};
// Calls body(Known<condition>{}).
template <typename Body>
static inline void specialize(bool condition, Body body) {
  if (condition) {
    body(Known<true>{});
  } else {
    body(Known<false>{});
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
