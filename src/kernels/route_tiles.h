// The two small matrix products of the router, blocked for registers. Included by kernel sources
// only. A register tile has up to kTileRows rows of one operand and fills about kLanes
// accumulators. Every element is summed in an order that depends only on its own row and column,
// not on the tile that it falls into.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/grid.h"
#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

inline constexpr int kTileRows = kLanes / 2;

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

// f(Constant<count>), for a count of 1..kMost that is known at run time only.
template <int kMost, typename F>
inline void with_constant(int64_t count, F&& f) {
  if (count == kMost) {
    f(Constant<kMost>{});
  } else if constexpr (kMost > 1) {
    with_constant<kMost - 1>(count, f);
  }
}

// f(first row, Constant<rows>) for the register tiles that cover `rows` rows.
template <typename F>
inline void for_row_tiles(int64_t rows, F&& f) {
  for (int64_t row = 0; row < rows; row += kTileRows) {
    const int64_t left = rows - row;
    with_constant<kTileRows>(left < kTileRows ? left : kTileRows,
                             [&](auto count) { f(row, count); });
  }
}

// The power of two that goes with `rows` rows to fill kLanes accumulators.
constexpr int columns_beside(int rows) {
  int columns = kLanes;
  while (columns * rows > kLanes) columns /= 2;
  return columns;
}

// The first half of every kBlock lanes: x's lanes there plus those of the other half.
// The second half: the same of y.
template <int kBlock, int... kLane>
inline Vec fold_pair(Vec x, Vec y, std::integer_sequence<int, kLane...>) {
  constexpr int kHalf = kBlock / 2;
  const Vec straight =
      __builtin_shufflevector(x, y, (kLane % kBlock < kHalf ? kLane : kLane + kLanes)...);
  const Vec crossed = __builtin_shufflevector(
      x, y, (kLane % kBlock < kHalf ? kLane + kHalf : kLane - kHalf + kLanes)...);
  return straight + crossed;
}

// Lane r of the result = sum(v[r]), added in the order of sum(): log2(kLanes) rounds, each of
// which halves the number of vectors.
template <int kBlock = kLanes>
inline Vec sum_each(Vec (&v)[kLanes]) {
  for (int r = 0; r < kBlock / 2; ++r) {
    v[r] = fold_pair<kBlock>(v[r], v[r + kBlock / 2], std::make_integer_sequence<int, kLanes>{});
  }
  if constexpr (kBlock > 2) return sum_each<kBlock / 2>(v);
  return v[0];
}

template <typename T>
inline Vec load_some(const T* p, int64_t count) {
  return count == kLanes ? load(p) : load_part(p, count);
}
template <typename T>
inline void store_some(T* p, Vec v, int64_t count, bool non_temporal) {
  if (count < kLanes) {
    store_part(p, v, count);
  } else if (non_temporal) {
    store_non_temporal(p, v);
  } else {
    store(p, v);
  }
}

// Lane column * (kLanes / kColumns) + row = row . column
template <int kRows, int kColumns, typename T, typename X>
inline Vec dot_tile(const Grid<const T>& rows, const X* const (&columns)[kColumns], int64_t d) {
  constexpr int kPitch = kLanes / kColumns;
  Vec sums[kLanes] = {};
  const auto step = [&](int64_t c, int64_t count) __attribute__((always_inline)) {
    Vec x[kColumns];
    for (int n = 0; n < kColumns; ++n) x[n] = load_some(columns[n] + c, count);
    for (int r = 0; r < kRows; ++r) {
      const Vec row = load_some(rows[r] + c, count);
      for (int n = 0; n < kColumns; ++n) {
        sums[n * kPitch + r] = fma(row, x[n], sums[n * kPitch + r]);
      }
    }
  };
  int64_t c = 0;
  for (; c + kLanes <= d; c += kLanes) step(c, kLanes);
  if (c < d) step(c, d - c);
  return sum_each(sums);
}

// out[column * kPitch + row] = row . column. Up to kTileRows - 1 elements after the last row of a
// column are written too, within the next multiple of kTileRows.
template <int kPitch, typename T, typename X>
inline void dots(const Grid<const T>& rows, int64_t row_count, const X* const* columns,
                 int64_t column_count, int64_t d, float* out) {
  constexpr int64_t kBlock = 16;  // columns that stay in the L1 cache for all tiles of rows
  for (int64_t block = 0; block < column_count; block += kBlock) {
    const int64_t end = block + kBlock < column_count ? block + kBlock : column_count;
    for_row_tiles(row_count, [&](int64_t row, auto tile_rows) {
      constexpr int kColumns = columns_beside(decltype(tile_rows)::value);
      constexpr int kWritten = kLanes / kColumns;
      const Grid<const T> tile = rows.from(row);
      for (int64_t column = block; column < end; column += kColumns) {
        const X* x[kColumns];
        for (int n = 0; n < kColumns; ++n) x[n] = columns[column + n < end ? column + n : end - 1];
        float lanes[kLanes];
        store(lanes, dot_tile<decltype(tile_rows)::value, kColumns>(tile, x, d));
        for (int n = 0; n < kColumns && column + n < end; ++n) {
          std::memcpy(out + (column + n) * kPitch + row, lanes + n * kWritten,
                      kWritten * sizeof(float));
        }
      }
    });
  }
}

// Terms of a weighted sum: the weight of term k in output row m is
// weight[k * kTermPitch + m * kRowPitch].
template <typename X, int kTermPitch, int kRowPitch>
struct Terms {
  const X* const* rows = nullptr;
  int64_t count = 0;
  const float* weight = nullptr;
};

// sums += the terms, for kVectors vectors from column c of kRows output rows; `count` elements of
// each vector.
template <int kRows, int kVectors, typename X, int kTermPitch, int kRowPitch>
inline void add_terms(const Terms<X, kTermPitch, kRowPitch>& terms, int64_t c, int64_t count,
                      int64_t row, Vec (&sums)[kRows][kVectors]) {
  const float* weight = terms.weight + row * kRowPitch;
  for (int64_t k = 0; k < terms.count; ++k, weight += kTermPitch) {
    Vec x[kVectors];
    for (int v = 0; v < kVectors; ++v) x[v] = load_some(terms.rows[k] + c + v * kLanes, count);
    for (int m = 0; m < kRows; ++m) {
      const Vec w = broadcast(weight[m * kRowPitch]);
      for (int v = 0; v < kVectors; ++v) sums[m][v] = fma(w, x[v], sums[m][v]);
    }
  }
}

template <int kRows, int kVectors, typename Out, typename Start, typename... SomeTerms>
inline void combine_tile(int64_t c, int64_t count, Out* const* out, int64_t row, bool non_temporal,
                         const Start& start, const SomeTerms&... terms) {
  Vec sums[kRows][kVectors];
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v) sums[m][v] = start(row + m, c + v * kLanes, count);
  }
  (add_terms(terms, c, count, row, sums), ...);
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v)
      store_some(out[row + m] + c + v * kLanes, sums[m][v], count, non_temporal);
  }
}

// out[m][c] = start(m, c) + sum over all terms of weight * row[c], for `rows` output rows.
// start(m, c, count) gives `count` elements from column c. non_temporal: the result is read much
// later, so that it is stored past the caches.
template <typename Out, typename Start, typename... SomeTerms>
inline void combine(int64_t d, Out* const* out, int64_t rows, bool non_temporal, const Start& start,
                    const SomeTerms&... terms) {
  constexpr int kMostVectors = 8;
  constexpr int64_t kBlock = kMostVectors * kLanes;  // columns of the terms in the L1 cache
  for (int64_t block = 0; block < d; block += kBlock) {
    const int64_t end = block + kBlock < d ? block + kBlock : d;
    for_row_tiles(rows, [&](int64_t row, auto tile_rows) {
      constexpr int kRows = decltype(tile_rows)::value;
      constexpr int kBeside = columns_beside(kRows);
      constexpr int kVectors = kBeside < kMostVectors ? kBeside : kMostVectors;
      int64_t c = block;
      for (; c + kVectors * kLanes <= end; c += kVectors * kLanes) {
        combine_tile<kRows, kVectors>(c, kLanes, out, row, non_temporal, start, terms...);
      }
      for (; c < end; c += kLanes) {
        const int64_t count = end - c < kLanes ? end - c : kLanes;
        combine_tile<kRows, 1>(c, count, out, row, non_temporal, start, terms...);
      }
    });
  }
}

}  // namespace
}  // namespace wavroute::kernels::WAVROUTE_ISA
