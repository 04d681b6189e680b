// From the rows of qkv to the float matrices that the products read, and back: conversion,
// rotation, transposition. Included by attention sources only.
#pragma once

#include <utility>

#include "kernels/attention_layout.h"
#include "kernels/sweep.h"

namespace wavroute::kernels::WAVROUTE_ISA {

// The angles of the rotary embedding.
struct Rotation {
  Grid<const float> cos, sin;  // [T, half]
  int64_t half;                // w / 2

  Rotation(const float* cos, const float* sin, int64_t width)
      : cos{cos, width / 2}, sin{sin, width / 2}, half(width / 2) {}
};

// out = scale * rotation of `in` by the angles of position t; direction -1 rotates back.
template <typename From, typename To>
static inline void rotate(const Rotation& rotation, int64_t t, float direction, float scale,
                          const From* in, To* out) {
  const int64_t half = rotation.half;
  const float *cos = rotation.cos[t], *sin = rotation.sin[t];
  sweep(half, [&](int64_t i, auto lanes) {
    const Vec a = lanes.load(in + i), b = lanes.load(in + half + i);
    const Vec c = lanes.load(cos + i) * scale, s = lanes.load(sin + i) * (scale * direction);
    lanes.store(out + i, fma(a, c, -(b * s)));
    lanes.store(out + half + i, fma(b, c, a * s));
  });
}

// out = scale * in
template <typename From, typename To>
static inline void scale_row(float scale, const From* in, int64_t width, To* out) {
  sweep(width, [&](int64_t i, auto lanes) { lanes.store(out + i, lanes.load(in + i) * scale); });
}

static inline void clear(float* begin, float* end) {
  for (; begin + kLanes <= end; begin += kLanes) store(begin, zero());
  for (; begin < end; ++begin) *begin = 0;
}

// Interleaves the lower (first = 0) or upper (first = kLanes / 2) halves of a and b.
template <int first, int... i>
static inline Vec interleave(Vec a, Vec b, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, (first + i / 2 + (i % 2) * kLanes)...);
}

// kLanes rows of kLanes, transposed: log2(kLanes) perfect shuffles of the rows.
static inline void transpose(Vec (&rows)[kLanes]) {
  constexpr auto lanes = std::make_integer_sequence<int, kLanes>{};
  for (int step = 1; step < kLanes; step *= 2) {
    Vec next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave<0>(rows[i], rows[i + kLanes / 2], lanes);
      next[2 * i + 1] = interleave<kLanes / 2>(rows[i], rows[i + kLanes / 2], lanes);
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

// The maxima, or the sums, of kLanes vectors, one in each lane: together they take a fraction of
// the time of kLanes separate reductions.
static inline Vec largest_of_each(const Vec* vectors) {
  Vec rows[kLanes];
  for (int i = 0; i < kLanes; ++i) rows[i] = vectors[i];
  transpose(rows);
  Vec result = rows[0];
  for (int i = 1; i < kLanes; ++i) result = max(result, rows[i]);
  return result;
}
static inline Vec sum_of_each(const Vec* vectors) {
  Vec rows[kLanes];
  for (int i = 0; i < kLanes; ++i) rows[i] = vectors[i];
  transpose(rows);
  Vec result = rows[0];
  for (int i = 1; i < kLanes; ++i) result += rows[i];
  return result;
}

// kLanes rows of `width` numbers become kLanes columns of a panel: to[c][i] = from[i][c]. Rows are
// read up to the next multiple of kLanes.
static inline void transpose_rows(Grid<const float> from, int64_t width, Grid<float> to) {
  for (int64_t column = 0; column < width; column += kLanes) {
    Vec block[kLanes];
    for (int i = 0; i < kLanes; ++i) block[i] = load(from[i] + column);
    transpose(block);
    const int64_t columns = least(width - column, kLanes);
    for (int64_t c = 0; c < columns; ++c) store(to[column + c], block[c]);
  }
}

// write(t, line) for the positions begin .. begin + rows - 1, to lines of sizes.columns floats;
// zero after the w that it writes, and for positions from T on.
template <typename Write>
static inline void pack(const AttentionSizes& sizes, int64_t begin, int64_t rows, Grid<float> to,
                        Write write) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t t = begin + row;
    float* const line = to[row];
    if (t < sizes.length) write(t, line);
    clear(line + (t < sizes.length ? sizes.width : 0), line + sizes.columns);
  }
}

// The packed rows of kLanes keys from `key` on, to their columns of panels [keys / kPanel, w,
// kPanel].
static inline void fill_panel(const AttentionSizes& sizes, int64_t key, Grid<const float> rows,
                              const Grids<float>& panels) {
  transpose_rows(rows, sizes.width, panels[key / kPanel].from(0, key % kPanel));
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
