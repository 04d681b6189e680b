// How attention is divided: the unit's rows in the tensors, its matrices in scratch, the blocks of
// queries. Included by attention sources only.
#pragma once

#include "kernels/attention.h"
#include "kernels/attention_tile.h"

namespace wavroute::kernels::WAVROUTE_ISA {

inline constexpr int kPanel = kVecs * kLanes;  // keys of a transposed panel: one tile's columns
inline constexpr int64_t kBlock = 8 * kRows;   // queries of a block
inline constexpr int64_t kKeyTile = 128;       // keys whose rows stay in the L1 cache

inline constexpr float kLog2e = 1.44269504F;
inline constexpr float kLn2 = 0.693147181F;

// Sizes of the matrices in scratch. Rows and columns are padded so that every tile is whole.
struct AttentionSizes {
  int64_t length, width;  // T, w
  int64_t columns;        // w, padded
  int64_t keys;           // T, padded
  int64_t score_pitch;    // an odd number of lines, so that rows don't compete for a cache set
  float scale;            // 1 / sqrt(w)

  explicit AttentionSizes(const AttentionShape& shape)
      : length(shape.length),
        width(shape.width),
        columns(round_up(shape.width, kLanes)),
        keys(round_up(round_up(shape.length, kRows), kPanel)),
        score_pitch((keys / 16 + 1) / 2 * 32 + 16),
        scale(1.0F / __builtin_sqrtf(static_cast<float>(shape.width))) {}
};

// Divides scratch into matrices; without memory it only counts.
class Scratch {
 public:
  Scratch(const AttentionSizes& sizes, float* memory) : sizes_(sizes), memory_(memory) {}
  Grid<float> key_rows() { return take(sizes_.keys, sizes_.columns); }  // [keys, columns]
  Grid<float> query_rows() { return take(kBlock, sizes_.columns); }     // [kBlock, columns]
  Grid<float> scores() { return take(kBlock, sizes_.score_pitch); }     // [kBlock, keys]
  Grids<float> panels() {  // [keys / kPanel, w, kPanel]
    return {take(sizes_.keys, sizes_.columns).at, kPanel * sizes_.width, kPanel};
  }
  [[nodiscard]] int64_t floats() const { return floats_; }

 private:
  Grid<float> take(int64_t rows, int64_t pitch) {
    float* const at = memory_ == nullptr ? nullptr : memory_ + floats_;
    floats_ += rows * pitch;
    return {at, pitch};
  }
  const AttentionSizes& sizes_;
  float* memory_;
  int64_t floats_ = 0;
};

// Queries at positions begin .. begin + rows - 1; begin is a multiple of kBlock. Tiles cover
// `padded` rows, of which those from `rows` on are zero.
struct QueryBlock {
  int64_t begin, rows, padded;
  QueryBlock(int64_t first, int64_t length)
      : begin(first), rows(least(kBlock, length - first)), padded(round_up(rows, kRows)) {}
};

// One key-value head of one sequence with its query heads.
struct Unit {
  const AttentionShape& shape;
  int64_t sequence, group;
  int64_t first_head, last_head;  // query heads, the last excluded

  Unit(const AttentionShape& of, int64_t index)
      : shape(of),
        sequence(index / of.kv_heads),
        group(index % of.kv_heads),
        first_head(group * (of.heads / of.kv_heads)),
        last_head(first_head + of.heads / of.kv_heads) {}

  // Row t of one head is that of position t. Of a tensor laid out as qkv.
  template <typename C>
  [[nodiscard]] Grid<C> query(C* qkv, int64_t head) const {
    return {qkv + sequence * shape.length * shape.row() + head * shape.width, shape.row()};
  }
  template <typename C>
  [[nodiscard]] Grid<C> key(C* qkv) const {
    return query(qkv, shape.heads + group);
  }
  template <typename C>
  [[nodiscard]] Grid<C> value(C* qkv) const {
    return query(qkv, shape.heads + shape.kv_heads + group);
  }
  // Of a tensor laid out as y.
  template <typename C>
  [[nodiscard]] Grid<C> output(C* y, int64_t head) const {
    const int64_t row = shape.heads * shape.width;
    return {y + sequence * shape.length * row + head * shape.width, row};
  }
  // Of a tensor laid out as lse.
  template <typename F>
  [[nodiscard]] F* per_query(F* lse, int64_t head) const {
    return lse + (sequence * shape.heads + head) * shape.length;
  }
};

}  // namespace wavroute::kernels::WAVROUTE_ISA
