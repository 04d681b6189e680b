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

// Of a row of P or dS of a block: an odd number of lines.
inline constexpr int64_t kScorePitch = kQueryBlock + kTiles;

struct TileBackwardScratch {
  // of the unit
  Grid<Bf16> key_rows;      // [keys, columns] rotated
  Grid<Bf16> value_rows;    // [keys, columns]
  Grid<Bf16> key_columns;   // [columns, keys] rotated
  Grid<float> key_grads;    // [keys, columns] dS^T Q, over the query heads of the group
  Grid<float> value_grads;  // [keys, columns]
  // of one query head: queries rotated, times log2(e) / sqrt(w), and dy
  Bf16* query_panels;        // [keys / 16] panels over w: transposed
  Bf16* query_pairs;         // [columns / 16] panels over T
  Bf16* output_grad_panels;  // as query_panels
  Bf16* output_grad_pairs;   // as query_pairs
  Grid<float> query_grads;   // [columns, keys] K^T dS^T
  float* lse;                // [keys] in base 2; zero for padding
  float* inner;              // [keys] dy . y; zero for padding
  // of a block of keys and queries
  Grid<Bf16> weights;      // [kKeyBlock, kQueryBlock] P
  Grid<Bf16> score_grads;  // [kKeyBlock, kQueryBlock] dS
  Bf16* score_grad_pairs;  // [kQueryBlock / 16] panels over kKeyBlock
  Bf16* lines;             // [kTile, columns]

  TileBackwardScratch(const TileSizes& sizes, TileScratch& from)
      : key_rows(from.take_rows<Bf16>(sizes.keys, sizes.columns)),
        value_rows(from.take_rows<Bf16>(sizes.keys, sizes.columns)),
        key_columns(from.take_rows<Bf16>(sizes.columns, odd_lines<Bf16>(sizes.keys))),
        key_grads(from.take_rows<float>(sizes.keys, sizes.columns)),
        value_grads(from.take_rows<float>(sizes.keys, sizes.columns)),
        query_panels(from.take<Bf16>(sizes.keys * sizes.columns)),
        query_pairs(from.take<Bf16>(sizes.keys * sizes.columns)),
        output_grad_panels(from.take<Bf16>(sizes.keys * sizes.columns)),
        output_grad_pairs(from.take<Bf16>(sizes.keys * sizes.columns)),
        query_grads(from.take_rows<float>(sizes.columns, odd_lines<float>(sizes.keys))),
        lse(from.take<float>(sizes.keys)),
        inner(from.take<float>(sizes.keys)),
        weights(from.take_rows<Bf16>(kKeyBlock, kScorePitch)),
        score_grads(from.take_rows<Bf16>(kKeyBlock, kScorePitch)),
        score_grad_pairs(from.take<Bf16>(kKeyBlock * kQueryBlock)),
        lines(from.take<Bf16>(kTile * sizes.columns)) {}
};

// Keys `key` .. `key + rows - 1` against queries `begin` .. `end - 1` of one head.
struct BlockPair {
  int64_t key, rows, begin, end;
};

// P and dS of the kTiles keys from `key` on and the kTiles queries from `query` on.
static inline void weights_and_score_grads(const TileSizes& sizes, const BlockPair& blocks,
                                           int64_t key, int64_t query,
                                           const TileBackwardScratch& scratch) {
  alignas(64) float scores[kTiles * kTiles], grads[kTiles * kTiles];
  multiply<false>(scratch.key_rows.from(key),
                  {scratch.query_panels + query * sizes.columns, sizes.width_panel()},
                  sizes.columns, {scores, kTiles});
  multiply<false>(scratch.value_rows.from(key),
                  {scratch.output_grad_panels + query * sizes.columns, sizes.width_panel()},
                  sizes.columns, {grads, kTiles});
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
    store_both(scratch.weights[row + i] + column, load(weight), load(weight + kLanes));
    const float* const grad = grads + i * kTiles;
    store_both(scratch.score_grads[row + i] + column, load(grad), load(grad + kLanes));
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
static inline void backward_blocks(const TileSizes& sizes, const BlockPair& blocks,
                                   const TileBackwardScratch& scratch) {
  for (int64_t key = blocks.key; key < blocks.key + blocks.rows; key += kTiles) {
    const int64_t first = most(key, blocks.begin);
    for (int64_t query = first; query < blocks.end; query += kTiles) {
      weights_and_score_grads(sizes, blocks, key, query, scratch);
    }
    const int64_t row = key - blocks.key, depth = blocks.end - first;
    const auto add_over_queries = [&](const Grid<Bf16>& left, const Bf16* right,
                                      const Grid<float>& sums) {
      for (int64_t c = 0; c < sizes.columns; c += kTiles) {
        multiply<true>(left.from(row, first - blocks.begin),
                       {right + c * sizes.keys + first * kTile, sizes.length_panel()}, depth,
                       sums.from(key, c));
      }
    };
    add_over_queries(scratch.weights, scratch.output_grad_pairs, scratch.value_grads);
    add_over_queries(scratch.score_grads, scratch.query_pairs, scratch.key_grads);
  }
  for (int64_t query = blocks.begin; query < blocks.end; query += kTiles) {
    const int64_t depth = least(blocks.rows, query + kTiles - blocks.key);
    for (int64_t c = 0; c < sizes.columns; c += kTiles) {
      multiply<true>(
          scratch.key_columns.from(c, blocks.key),
          {scratch.score_grad_pairs + (query - blocks.begin) * kKeyBlock, kKeyBlock * kTile}, depth,
          scratch.query_grads.from(c, query));
    }
  }
}

// The factors from queries and dy of one head, and the numbers of each query.
static inline void pack_head(const AttentionBackward<Bf16>& args, const TileSizes& sizes,
                             const Rotation& rotation, const Unit& unit, int64_t head,
                             const TileBackwardScratch& scratch) {
  const auto queries = unit.query(args.qkv, head);
  const auto y = unit.output(args.y, head), dy = unit.output(args.dy, head);
  const float* const lse = unit.per_query(args.lse, head);
  for (int64_t begin = 0; begin < sizes.keys; begin += kTile) {
    pack_tile(sizes, begin, scratch.lines, [&](int64_t t, Bf16* line) {
      rotate(rotation, t, 1.0F, kLog2e * sizes.scale, queries[t], line);
    });
    transpose_to_panel(sizes, scratch.lines, scratch.query_panels + begin * sizes.columns);
    interleave_in_panels(sizes, scratch.lines, begin, scratch.query_pairs);
    pack_tile(sizes, begin, scratch.lines,
              [&](int64_t t, Bf16* line) { copy_row(dy[t], sizes.width, line); });
    transpose_to_panel(sizes, scratch.lines, scratch.output_grad_panels + begin * sizes.columns);
    interleave_in_panels(sizes, scratch.lines, begin, scratch.output_grad_pairs);
    Vec inner[kTile] = {};
    for (int64_t row = 0; row < least(kTile, sizes.length - begin); ++row) {
      sweep(sizes.width, [&](int64_t i, auto lanes) {
        inner[row] =
            fma(lanes.load(y[begin + row] + i), lanes.load(dy[begin + row] + i), inner[row]);
      });
    }
    store(scratch.inner + begin, sum_of_each(inner));
  }
  clear(scratch.lse, scratch.lse + sizes.keys);
  sweep(sizes.length,
        [&](int64_t t, auto lanes) { lanes.store(scratch.lse + t, lanes.load(lse + t) * kLog2e); });
  clear(scratch.query_grads.at, scratch.query_grads[sizes.columns]);
}

// Keys and values of a unit, and zeros for their gradients.
static inline void pack_unit(const AttentionBackward<Bf16>& args, const TileSizes& sizes,
                             const Rotation& rotation, const Unit& unit,
                             const TileBackwardScratch& scratch) {
  const auto keys = unit.key(args.qkv), values = unit.value(args.qkv);
  for (int64_t key = 0; key < sizes.keys; key += kTile) {
    Bf16* const rows = scratch.key_rows[key];
    pack_tile(sizes, key, rows,
              [&](int64_t t, Bf16* line) { rotate(rotation, t, 1.0F, 1.0F, keys[t], line); });
    Bf16* const panel = scratch.lines;
    transpose_to_panel(sizes, rows, panel);
    panel_to_columns(sizes, panel, scratch.key_columns.from(0, key));
    pack_tile(sizes, key, scratch.value_rows[key],
              [&](int64_t t, Bf16* line) { copy_row(values[t], sizes.width, line); });
  }
  clear(scratch.key_grads.at, scratch.key_grads[sizes.keys]);
  clear(scratch.value_grads.at, scratch.value_grads[sizes.keys]);
}

// dq of one head, from its transpose.
static inline void unpack_query_grads(const TileSizes& sizes, const Rotation& rotation,
                                      Grid<Bf16> to, const TileBackwardScratch& scratch) {
  // The packed queries are no longer in use.
  const Grid<float> rows = {reinterpret_cast<float*>(scratch.query_panels), sizes.columns};
  for (int64_t begin = 0; begin < sizes.length; begin += kTile) {
    for (int64_t c = 0; c < sizes.columns; c += kTile) {
      transpose_rows(scratch.query_grads.from(c, begin), kTile, rows.from(0, c));
    }
    for (int64_t row = 0; row < least(kTile, sizes.length - begin); ++row) {
      rotate(rotation, begin + row, -1.0F, sizes.scale, rows[row], to[begin + row]);
    }
  }
}

static inline void backward_unit_in_tiles(const AttentionBackward<Bf16>& args,
                                          const TileSizes& sizes, int64_t index,
                                          const TileBackwardScratch& scratch) {
  const Rotation rotation(args.cos, args.sin, sizes.width);
  const Unit unit(args.shape, index);
  pack_unit(args, sizes, rotation, unit, scratch);
  for (int64_t head = unit.first_head; head < unit.last_head; ++head) {
    pack_head(args, sizes, rotation, unit, head, scratch);
    for (int64_t key = 0; key < sizes.keys; key += kKeyBlock) {
      const int64_t rows = least(kKeyBlock, sizes.keys - key);
      for (int64_t begin = key; begin < sizes.keys; begin += kQueryBlock) {
        const int64_t end = least(sizes.keys, begin + kQueryBlock);
        backward_blocks(sizes, {key, rows, begin, end}, scratch);
      }
    }
    unpack_query_grads(sizes, rotation, unit.query(args.dqkv, head), scratch);
  }
  // The packed queries carry log2(e) / sqrt(w): times ln 2, the scale of dk remains.
  const auto key_grads = unit.key(args.dqkv), value_grads = unit.value(args.dqkv);
  for (int64_t t = 0; t < sizes.length; ++t) {
    rotate(rotation, t, -1.0F, kLn2, scratch.key_grads[t], key_grads[t]);
    scale_row(1.0F, scratch.value_grads[t], sizes.width, value_grads[t]);
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
