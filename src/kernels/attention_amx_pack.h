// How attention with AMX is divided, and its matrices of bf16 numbers: rows for the left of a
// product, panels (amx_tile.h) for the right. Included by attention_amx.cpp only.
#pragma once

#include "kernels/amx_tile.h"
#include "kernels/attention_pack.h"

namespace wavroute::kernels::WAVROUTE_ISA {

// The next multiple of 64 bytes whose number of them is odd: rows at such a distance don't compete
// for a cache set.
template <typename T>
static inline int64_t odd_lines(int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  return ((count + kLine - 1) / kLine / 2 * 2 + 1) * kLine;
}

// Sizes of the matrices in scratch, padded to whole pairs of tiles. Padding is zero in every
// factor, so that it adds nothing.
struct TileSizes {
  int64_t length, width;  // T, w
  int64_t columns;        // w, padded
  int64_t keys;           // T, padded
  float scale;            // 1 / sqrt(w)

  explicit TileSizes(const AttentionShape& shape)
      : length(shape.length),
        width(shape.width),
        columns(round_up(shape.width, kTiles)),
        keys(round_up(shape.length, kTiles)),
        scale(1.0F / __builtin_sqrtf(static_cast<float>(shape.width))) {}

  // Numbers of a panel over w, and of one over T.
  [[nodiscard]] int64_t width_panel() const { return columns * kTile; }
  [[nodiscard]] int64_t length_panel() const { return keys * kTile; }
};

// Divides scratch into matrices that begin on a cache line; without memory it only counts.
class TileScratch {
 public:
  explicit TileScratch(float* memory) : memory_(memory) {}
  template <typename T>
  Grid<T> take_rows(int64_t rows, int64_t pitch) {
    return {take<T>(rows * pitch), pitch};
  }
  template <typename T>
  T* take(int64_t count) {
    float* const at = memory_ == nullptr ? nullptr : memory_ + floats_;
    floats_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64) / 4;
    return reinterpret_cast<T*>(at);
  }
  [[nodiscard]] int64_t floats() const { return floats_; }

 private:
  float* memory_;
  int64_t floats_ = 0;
};

static inline UintVec bits(Vec v) { return reinterpret_cast<UintVec>(v); }

// [16, 2] from two rows of 16 bf16 numbers.
static inline void store_pairs(Bf16* to, const Bf16* even, const Bf16* odd) {
  const UintVec pairs = bits(load(even)) >> 16 | bits(load(odd));
  std::memcpy(to, &pairs, sizeof pairs);
}
// [16, 2] from two vectors, rounded.
static inline void store_pairs(Bf16* to, Vec even, Vec odd) {
  const auto rounded = reinterpret_cast<__m512i>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(odd), reinterpret_cast<__m512>(even)));
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i pairs = _mm512_maskz_permutexvar_epi16(~0U, order, rounded);
  std::memcpy(to, &pairs, sizeof pairs);
}
// 32 numbers in a row, rounded.
static inline void store_both(Bf16* to, Vec first, Vec second) {
  const __m512bh rounded =
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first));
  std::memcpy(to, &rounded, sizeof rounded);
}

// write(t, line) for positions begin .. begin + kTile - 1, to lines of sizes.columns numbers; zero
// after the w that it writes, and for positions from T on.
template <typename Write>
static inline void pack_tile(const TileSizes& sizes, int64_t begin, Bf16* to, Write write) {
  for (int64_t t = begin; t < begin + kTile; ++t, to += sizes.columns) {
    const int64_t written = t < sizes.length ? sizes.width : 0;
    if (written > 0) write(t, to);
    std::memset(to + written, 0, static_cast<size_t>(sizes.columns - written) * sizeof(Bf16));
  }
}

static inline void copy_row(const Bf16* from, int64_t width, Bf16* to) {
  std::memcpy(to, from, static_cast<size_t>(width) * sizeof(Bf16));
}

// kTile rows of sizes.columns numbers as one panel: their transpose. Pairs travel as floats.
static inline void transpose_to_panel(const TileSizes& sizes, const Bf16* rows, Bf16* panel) {
  transpose_rows({reinterpret_cast<const float*>(rows), sizes.columns / 2}, sizes.columns / 2,
                 {reinterpret_cast<float*>(panel), kTile});
}

// kTile rows of sizes.columns numbers as rows t .. t + 15 of panels over T.
static inline void interleave_in_panels(const TileSizes& sizes, const Bf16* rows, int64_t t,
                                        Bf16* panels) {
  for (int64_t row = 0; row < kTile; row += 2, rows += 2 * sizes.columns) {
    Bf16* to = panels + (t + row) * kTile;
    for (int64_t c = 0; c < sizes.columns; c += kTile, to += sizes.length_panel()) {
      store_pairs(to, rows + c, rows + sizes.columns + c);
    }
  }
}

// A panel of kTile columns as kTile columns of `to`: its transpose.
static inline void panel_to_columns(const TileSizes& sizes, const Bf16* panel, Grid<Bf16> to) {
  for (int64_t row = 0; row < sizes.columns; row += 2, panel += 2 * kTile) {
    const __m512i pairs = _mm512_loadu_si512(panel);
    const __m256i even = _mm512_maskz_cvtepi32_epi16(0xFFFF, pairs);
    const __m256i odd =
        _mm512_maskz_cvtepi32_epi16(0xFFFF, _mm512_maskz_srli_epi32(0xFFFF, pairs, 16));
    std::memcpy(to[row], &even, sizeof even);
    std::memcpy(to[row + 1], &odd, sizeof odd);
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
