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
struct Layout {
  int64_t length, width;  // T, w
  int64_t columns;        // w, padded
  int64_t keys;           // T, padded
  int64_t score_stride;   // an odd number of lines, so that rows don't compete for a cache set
  float scale;            // 1 / sqrt(w)

  explicit Layout(const AttentionShape& shape)
      : length(shape.length),
        width(shape.width),
        columns(round_up(shape.width, kLanes)),
        keys(round_up(round_up(shape.length, kRows), kPanel)),
        score_stride((keys / 16 + 1) / 2 * 32 + 16),
        scale(1.0F / __builtin_sqrtf(static_cast<float>(shape.width))) {}

  [[nodiscard]] int64_t matrix_floats() const { return keys * columns; }
  [[nodiscard]] int64_t block_floats() const { return kBlock * columns; }
  [[nodiscard]] int64_t score_floats() const { return kBlock * score_stride; }
};

// Queries at positions begin .. begin + rows - 1; begin is a multiple of kBlock. Tiles cover
// `padded` rows, of which those from `rows` on are zero.
struct Block {
  int64_t begin, rows, padded;
  Block(int64_t first, int64_t length)
      : begin(first), rows(least(kBlock, length - first)), padded(round_up(rows, kRows)) {}
};

// Row t of one head of a tensor: head + t * stride.
template <typename C>
struct HeadRows {
  C* head;
  int64_t stride;
  [[nodiscard]] C* operator[](int64_t t) const { return head + t * stride; }
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

  // Of a tensor laid out as qkv.
  template <typename C>
  [[nodiscard]] HeadRows<C> query(C* qkv, int64_t head) const {
    return {qkv + sequence * shape.length * shape.row() + head * shape.width, shape.row()};
  }
  template <typename C>
  [[nodiscard]] HeadRows<C> key(C* qkv) const {
    return query(qkv, shape.heads + group);
  }
  template <typename C>
  [[nodiscard]] HeadRows<C> value(C* qkv) const {
    return query(qkv, shape.heads + shape.kv_heads + group);
  }
  // Of a tensor laid out as y.
  template <typename C>
  [[nodiscard]] HeadRows<C> output(C* y, int64_t head) const {
    const int64_t stride = shape.heads * shape.width;
    return {y + sequence * shape.length * stride + head * shape.width, stride};
  }
  // Of a tensor laid out as lse.
  template <typename F>
  [[nodiscard]] F* per_query(F* lse, int64_t head) const {
    return lse + (sequence * shape.heads + head) * shape.length;
  }
};

}  // namespace wavroute::kernels::WAVROUTE_ISA
