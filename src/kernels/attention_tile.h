// The products of attention, in tiles that stay in registers: kRows rows of the left matrix by up
// to kVecs vectors of columns of the right one. Included by attention sources only.
#pragma once

#include "kernels/grid.h"
#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {

// 24 or 12 accumulators, with the vectors of the right matrix and one element of the left, fill
// the 32 or 16 registers; both are enough to hide the latency of a fused multiply-add.
inline constexpr int kRows = kLanes == 16 ? 8 : 6;
inline constexpr int kVecs = kLanes == 16 ? 3 : 2;

static inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

template <int vectors>
struct Tile {
  Vec at[kRows][vectors] = {};
};

template <int vectors>
static inline void load_tile(Tile<vectors>& tile, Grid<const float> from) {
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < vectors; ++v) tile.at[i][v] = load(from[i] + v * kLanes);
  }
}
template <int vectors>
static inline void store_tile(const Tile<vectors>& tile, Grid<float> to) {
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < vectors; ++v) store(to[i] + v * kLanes, tile.at[i][v]);
  }
}

// An operand on the left: element (i, k) is at[i * row + k * depth], so that a matrix and its
// transpose are read in place.
struct Left {
  const float* at;
  int64_t row, depth;
};
static inline Left plain(Grid<const float> matrix) { return {matrix.at, matrix.pitch, 1}; }
static inline Left transposed(Grid<const float> matrix) { return {matrix.at, 1, matrix.pitch}; }

// tile[i][j] += sum_k left(i, k) right[k][j], k = 0 .. depth - 1 in this order
template <int vectors>
static inline void multiply(Tile<vectors>& tile, Left left, Grid<const float> right,
                            int64_t depth) {
  for (int64_t k = 0; k < depth; ++k) {
    Vec columns[vectors];
    for (int v = 0; v < vectors; ++v) columns[v] = load(right[k] + v * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const Vec element = broadcast(left.at[i * left.row + k * left.depth]);
      for (int v = 0; v < vectors; ++v) {
        tile.at[i][v] = fma(element, columns[v], tile.at[i][v]);
      }
    }
  }
}

template <int count>
struct Vectors {
  static constexpr int value = count;
};
// Calls body(Vectors<count>{}), 1 <= count <= kVecs.
template <int largest = kVecs, typename Body>
static inline void with_vectors(int64_t count, Body body) {
  if constexpr (largest > 1) {
    if (count < largest) return with_vectors<largest - 1>(count, body);
  }
  body(Vectors<largest>{});
}

// Calls body(column, Vectors<n>{}) for the column ranges that make up `columns`, a multiple of
// kLanes. A rest between one and two tiles is halved: thin tiles are slow.
template <typename Body>
static inline void for_column_tiles(int64_t columns, Body body) {
  for (int64_t begin = 0; begin < columns;) {
    const int64_t left = (columns - begin) / kLanes;
    const int64_t take = left <= kVecs ? left : left < 2 * kVecs ? (left + 1) / 2 : kVecs;
    with_vectors(take, [&](auto vectors) { body(begin, vectors); });
    begin += take * kLanes;
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
