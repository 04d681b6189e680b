// Rows of numbers over the threads of a block: a team of threads holds a row in its registers.
// Included by kernel sources only.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/grid.h"

namespace wavroute::kernels::cuda {

inline constexpr int kTeamThreads = 256;  // of a block, while a row needs no more
// Of a row, in one thread: in packs of four numbers, or number by number.
inline constexpr int kMostPacks = 4, kMostSingles = 8;

// How rows of d numbers lie over a block. A thread of a team of `threads` has the packs at columns
// (lane + p * threads) * n, p < packs.
struct RowShape {
  int threads = kWarp;  // of a team
  int teams = 1;        // of a block
  int packs = 1;        // 1, 2 or 4 where n is 4, 8 where it is 1
  [[nodiscard]] Shape launch(int64_t rows, int sums) const {
    const int warps = threads / kWarp;
    return {(rows + teams - 1) / teams, threads * teams,
            warps == 1 ? 0 : sizeof(float) * static_cast<size_t>(teams * warps * sums)};
  }
};

// Throws std::invalid_argument for rows that no team can hold.
inline RowShape row_shape(int64_t d, int n) {
  const int64_t packs = (d + n - 1) / n;
  const int most = n == 1 ? kMostSingles : kMostPacks;
  RowShape shape;
  while (shape.threads < kMostThreads && packs > int64_t{shape.threads} * most) shape.threads *= 2;
  if (packs > int64_t{shape.threads} * most) throw std::invalid_argument("rows are too long");
  while (packs > int64_t{shape.threads} * shape.packs) shape.packs *= 2;
  if (n == 1) shape.packs = kMostSingles;
  if (shape.threads < kTeamThreads) shape.teams = kTeamThreads / shape.threads;
  return shape;
}

// Calls kernel.operator()<n, packs>(shape) for packs of n = 4 numbers where `in_packs`, else of
// one.
template <typename Kernel>
void with_packs(bool in_packs, int64_t d, const Kernel& kernel) {
  if (!in_packs) return kernel.template operator()<1, kMostSingles>(row_shape(d, 1));
  switch (const RowShape shape = row_shape(d, 4); shape.packs) {
    case 1:
      return kernel.template operator()<4, 1>(shape);
    case 2:
      return kernel.template operator()<4, 2>(shape);
    default:
      return kernel.template operator()<4, 4>(shape);
  }
}

// Whether every row begins where a pack of 4 may.
template <typename T>
bool takes_packs(const Grid<T>& rows) {
  return !rows ||
         (rows.pitch % 4 == 0 && reinterpret_cast<uintptr_t>(rows.at) % (4 * sizeof(T)) == 0);
}
inline bool takes_packs(const float* vector) {
  return reinterpret_cast<uintptr_t>(vector) % (4 * sizeof(float)) == 0;
}

// This thread's place in a team.
struct Team {
  int lane;     // in the team
  int threads;  // of the team
  int number;   // of the team in the block
  WAVROUTE_DEVICE explicit Team(const RowShape& shape)
      : lane(thread() % shape.threads), threads(shape.threads), number(thread() / shape.threads) {}

  // Calls f(p, column) for this thread's packs of n numbers of a row of d.
  template <int n, int kPacks, typename F>
  WAVROUTE_DEVICE void for_packs(int64_t d, const F& f) const {
    WAVROUTE_UNROLL for (int p = 0; p < kPacks; ++p) {
      const int64_t column = (lane + int64_t{p} * threads) * n;
      if (column < d) f(p, column);
    }
  }

  // The sums of x over the team, in every thread of it, added in an order that depends on the
  // team's size alone. All threads of the block call it.
  template <int kSums>
  WAVROUTE_DEVICE void sum(float (&x)[kSums]) const {
    WAVROUTE_UNROLL for (int mask = kWarp / 2; mask > 0; mask /= 2) add_from_lane(x, mask);
    if (threads == kWarp) return;
    const int warps = threads / kWarp;
    float* const sums = shared<float>() + number * warps * kSums;
    barrier();  // whoever still reads those of the sum before
    if (lane % kWarp == 0) {
      WAVROUTE_UNROLL for (int s = 0; s < kSums; ++s) sums[lane / kWarp * kSums + s] = x[s];
    }
    barrier();
    WAVROUTE_UNROLL for (int s = 0; s < kSums; ++s) {
      x[s] = sums[s];
      for (int w = 1; w < warps; ++w) x[s] += sums[w * kSums + s];
    }
  }
};

}  // namespace wavroute::kernels::cuda
