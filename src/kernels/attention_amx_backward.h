// Backward of one key-value head with its query heads, in tiles, by the formulas of
// attention_backward.h. Scores are stored as [keys, queries]: the numbers of a query (its
// logsumexp, its dy . y) then form a vector, P and dS are the left factors of dV and dK as they
// are, and pairs of
// rows of dS are the right factor of dQ^T. Included by attention_amx.cpp only.
#pragma once

#include "kernels/attention_amx_forward.h"

namespace wavroute::kernels::WAVROUTE_ISA {

inline constexpr int64_t kKeyBlock = 2 * kTiles;  // keys whose dQ is added at once
inline constexpr int64_t kQueryBlock = 256;       // queries whose P and dS are held at once

// One score-sized factor of the current block.
struct ScoreRows {
  static constexpr int64_t kStride = kQueryBlock + kTiles;  // an odd number of lines
  Bf16* at;                                                 // [kKeyBlock, kStride]
  [[nodiscard]] Bf16* row(int64_t key) const { return at + key * kStride; }
};

struct TileBackwardScratch {
  int64_t key_stride, query_stride;
  // of the unit
  Bf16* key_rows;      // [keys, columns] rotated
  Bf16* value_rows;    // [keys, columns]
  Bf16* key_columns;   // [columns, key_stride] rotated
  float* key_grads;    // [keys, columns] dS^T Q, over the query heads of the group
  float* value_grads;  // [keys, columns]
  // of one query head: queries rotated, times log2(e) / sqrt(w), and dy
  Bf16* query_panels;        // [keys / 16] panels over w: transposed
  Bf16* query_pairs;         // [columns / 16] panels over T
  Bf16* output_grad_panels;  // as query_panels
  Bf16* output_grad_pairs;   // as query_pairs
  float* query_grads;        // [columns, query_stride] K^T dS^T
  float* lse;                // [keys] in base 2; zero for padding
  float* inner;              // [keys] dy . y; zero for padding
  // of a block of keys and queries
  ScoreRows weights;       // P
  ScoreRows score_grads;   // dS
  Bf16* score_grad_pairs;  // [kQueryBlock / 16] panels over kKeyBlock
  Bf16* lines;             // [kTile, columns]

  TileBackwardScratch(const TileLayout& layout, TileScratch& from)
      : key_stride(odd_lines<Bf16>(layout.keys)),
        query_stride(odd_lines<float>(layout.keys)),
        key_rows(from.take<Bf16>(layout.keys * layout.columns)),
        value_rows(from.take<Bf16>(layout.keys * layout.columns)),
        key_columns(from.take<Bf16>(layout.columns * key_stride)),
        key_grads(from.take<float>(layout.keys * layout.columns)),
        value_grads(from.take<float>(layout.keys * layout.columns)),
        query_panels(from.take<Bf16>(layout.keys * layout.columns)),
        query_pairs(from.take<Bf16>(layout.keys * layout.columns)),
        output_grad_panels(from.take<Bf16>(layout.keys * layout.columns)),
        output_grad_pairs(from.take<Bf16>(layout.keys * layout.columns)),
        query_grads(from.take<float>(layout.columns * query_stride)),
        lse(from.take<float>(layout.keys)),
        inner(from.take<float>(layout.keys)),
        weights{from.take<Bf16>(kKeyBlock * ScoreRows::kStride)},
        score_grads{from.take<Bf16>(kKeyBlock * ScoreRows::kStride)},
        score_grad_pairs(from.take<Bf16>(kKeyBlock * kQueryBlock)),
        lines(from.take<Bf16>(kTile * layout.columns)) {}
};

// Keys `key` .. `key + rows - 1` against queries `begin` .. `end - 1` of one head.
struct Blocks {
  int64_t key, rows, begin, end;
};

// P and dS of the kTiles keys from `key` on and the kTiles queries from `query` on.
static inline void weights_and_score_grads(const TileLayout& layout, const Blocks& blocks,
                                           int64_t key, int64_t query,
                                           const TileBackwardScratch& scratch) {
  alignas(64) float scores[kTiles * kTiles], grads[kTiles * kTiles];
  multiply<false>({scratch.key_rows + key * layout.columns, layout.columns},
                  {scratch.query_panels + query * layout.columns, layout.width_panel()},
                  layout.columns, scores, kTiles);
  multiply<false>({scratch.value_rows + key * layout.columns, layout.columns},
                  {scratch.output_grad_panels + query * layout.columns, layout.width_panel()},
                  layout.columns, grads, kTiles);
  const int64_t row = key - blocks.key, column = query - blocks.begin;
  const bool diagonal = key == query;
  // P and dS overwrite their inputs: rows hold both halves of a key, pairs two keys.
  for (int64_t half = 0; half < kTiles; half += kLanes) {
    const Vec lse = load(scratch.lse + query + half), inner = load(scratch.inner + query + half);
    const IntVec lane = lane_numbers() + static_cast<int32_t>(half);
    for (int64_t i = 0; i < kTiles; ++i) {
      float* const score = scores + i * kTiles + half;
      float* const grad = grads + i * kTiles + half;
      Vec weight = exp2(load(score) - lse);
      if (diagonal) weight = lane < static_cast<int32_t>(i) ? zero() : weight;
      store(score, weight);
      store(grad, weight * (load(grad) - inner));
    }
  }
  for (int64_t i = 0; i < kTiles; ++i) {
    const float* const weight = scores + i * kTiles;
    store_both(scratch.weights.row(row + i) + column, load(weight), load(weight + kLanes));
    const float* const grad = grads + i * kTiles;
    store_both(scratch.score_grads.row(row + i) + column, load(grad), load(grad + kLanes));
  }
  for (int64_t half = 0; half < kTiles; half += kTile) {
    Bf16* const panel = scratch.score_grad_pairs + (column + half) * kKeyBlock + row * kTile;
    for (int64_t i = 0; i < kTiles; i += 2) {
      const float* const grad = grads + i * kTiles + half;
      store_pairs(panel + i * kTile, load(grad), load(grad + kTiles));
    }
  }
}

// Adds the gradients that a block of keys and a block of queries give each other.
static inline void backward_blocks(const TileLayout& layout, const Blocks& blocks,
                                   const TileBackwardScratch& scratch) {
  for (int64_t key = blocks.key; key < blocks.key + blocks.rows; key += kTiles) {
    const int64_t first = most(key, blocks.begin);
    for (int64_t query = first; query < blocks.end; query += kTiles) {
      weights_and_score_grads(layout, blocks, key, query, scratch);
    }
    const int64_t row = key - blocks.key, depth = blocks.end - first;
    const auto add_over_queries = [&](const ScoreRows& left, const Bf16* right, float* sums) {
      for (int64_t c = 0; c < layout.columns; c += kTiles) {
        multiply<true>({left.row(row) + first - blocks.begin, ScoreRows::kStride},
                       {right + c * layout.keys + first * kTile, layout.length_panel()}, depth,
                       sums + key * layout.columns + c, layout.columns);
      }
    };
    add_over_queries(scratch.weights, scratch.output_grad_pairs, scratch.value_grads);
    add_over_queries(scratch.score_grads, scratch.query_pairs, scratch.key_grads);
  }
  for (int64_t query = blocks.begin; query < blocks.end; query += kTiles) {
    const int64_t depth = least(blocks.rows, query + kTiles - blocks.key);
    for (int64_t c = 0; c < layout.columns; c += kTiles) {
      multiply<true>(
          {scratch.key_columns + c * scratch.key_stride + blocks.key, scratch.key_stride},
          {scratch.score_grad_pairs + (query - blocks.begin) * kKeyBlock, kKeyBlock * kTile}, depth,
          scratch.query_grads + c * scratch.query_stride + query, scratch.query_stride);
    }
  }
}

// The factors from queries and dy of one head, and the numbers of each query.
static inline void pack_head(const AttentionBackward<Bf16>& args, const TileLayout& layout,
                             const Rotation& rotation, const Unit& unit, int64_t head,
                             const TileBackwardScratch& scratch) {
  const auto queries = unit.query(args.qkv, head);
  const auto y = unit.output(args.y, head), dy = unit.output(args.dy, head);
  const float* const lse = unit.per_query(args.lse, head);
  for (int64_t begin = 0; begin < layout.keys; begin += kTile) {
    pack_tile(layout, begin, scratch.lines, [&](int64_t t, Bf16* line) {
      rotate(rotation, t, 1.0F, kLog2e * layout.scale, queries[t], line);
    });
    transpose_to_panel(layout, scratch.lines, scratch.query_panels + begin * layout.columns);
    interleave_in_panels(layout, scratch.lines, begin, scratch.query_pairs);
    pack_tile(layout, begin, scratch.lines,
              [&](int64_t t, Bf16* line) { copy_row(dy[t], layout.width, line); });
    transpose_to_panel(layout, scratch.lines, scratch.output_grad_panels + begin * layout.columns);
    interleave_in_panels(layout, scratch.lines, begin, scratch.output_grad_pairs);
    Vec inner[kTile] = {};
    for (int64_t row = 0; row < least(kTile, layout.length - begin); ++row) {
      sweep(layout.width, [&](int64_t i, auto lanes) {
        inner[row] =
            fma(lanes.load(y[begin + row] + i), lanes.load(dy[begin + row] + i), inner[row]);
      });
    }
    store(scratch.inner + begin, sum_of_each(inner));
  }
  clear(scratch.lse, scratch.lse + layout.keys);
  sweep(layout.length,
        [&](int64_t t, auto lanes) { lanes.store(scratch.lse + t, lanes.load(lse + t) * kLog2e); });
  clear(scratch.query_grads, scratch.query_grads + layout.columns * scratch.query_stride);
}

// Keys and values of a unit, and zeros for their gradients.
static inline void pack_unit(const AttentionBackward<Bf16>& args, const TileLayout& layout,
                             const Rotation& rotation, const Unit& unit,
                             const TileBackwardScratch& scratch) {
  const auto keys = unit.key(args.qkv), values = unit.value(args.qkv);
  for (int64_t key = 0; key < layout.keys; key += kTile) {
    Bf16* const rows = scratch.key_rows + key * layout.columns;
    pack_tile(layout, key, rows,
              [&](int64_t t, Bf16* line) { rotate(rotation, t, 1.0F, 1.0F, keys[t], line); });
    Bf16* const panel = scratch.lines;
    transpose_to_panel(layout, rows, panel);
    panel_to_columns(layout, panel, scratch.key_columns + key, scratch.key_stride);
    pack_tile(layout, key, scratch.value_rows + key * layout.columns,
              [&](int64_t t, Bf16* line) { copy_row(values[t], layout.width, line); });
  }
  clear(scratch.key_grads, scratch.key_grads + layout.keys * layout.columns);
  clear(scratch.value_grads, scratch.value_grads + layout.keys * layout.columns);
}

// dq of one head, from its transpose.
static inline void unpack_query_grads(const TileLayout& layout, const Rotation& rotation,
                                      HeadRows<Bf16> to, const TileBackwardScratch& scratch) {
  auto* const rows = reinterpret_cast<float*>(scratch.query_panels);  // no longer in use
  for (int64_t begin = 0; begin < layout.length; begin += kTile) {
    for (int64_t c = 0; c < layout.columns; c += kTile) {
      transpose_rows(scratch.query_grads + c * scratch.query_stride + begin, scratch.query_stride,
                     kTile, rows + c, layout.columns);
    }
    for (int64_t row = 0; row < least(kTile, layout.length - begin); ++row) {
      rotate(rotation, begin + row, -1.0F, layout.scale, rows + row * layout.columns,
             to[begin + row]);
    }
  }
}

static inline void backward_unit_in_tiles(const AttentionBackward<Bf16>& args,
                                          const TileLayout& layout, int64_t index,
                                          const TileBackwardScratch& scratch) {
  const Rotation rotation{args.cos, args.sin, layout.width / 2};
  const Unit unit(args.shape, index);
  pack_unit(args, layout, rotation, unit, scratch);
  for (int64_t head = unit.first_head; head < unit.last_head; ++head) {
    pack_head(args, layout, rotation, unit, head, scratch);
    for (int64_t key = 0; key < layout.keys; key += kKeyBlock) {
      const int64_t rows = least(kKeyBlock, layout.keys - key);
      for (int64_t begin = key; begin < layout.keys; begin += kQueryBlock) {
        const int64_t end = least(layout.keys, begin + kQueryBlock);
        backward_blocks(layout, {key, rows, begin, end}, scratch);
      }
    }
    unpack_query_grads(layout, rotation, unit.query(args.dqkv, head), scratch);
  }
  // The packed queries carry log2(e) / sqrt(w): times ln 2, the scale of dk remains.
  const auto key_grads = unit.key(args.dqkv), value_grads = unit.value(args.dqkv);
  for (int64_t t = 0; t < layout.length; ++t) {
    rotate(rotation, t, -1.0F, kLn2, scratch.key_grads + t * layout.columns, key_grads[t]);
    scale_row(1.0F, scratch.value_grads + t * layout.columns, layout.width, value_grads[t]);
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
