// Backward of one key-value head with its query heads, from the logsumexp of the forward pass:
//   P = 2^(S - lse), dP = dy V^T, dS = P (dP - rowsum(dy y)),
//   dV = P^T dy, dQ = dS K, dK = dS^T Q (the last two before the inverse rotation and the scale).
// Included by attention.cpp only.
#pragma once

#include "kernels/attention_causal.h"
#include "kernels/attention_pack.h"

namespace wavroute::kernels::WAVROUTE_ISA {

struct BackwardScratch {
  Grid<float> keys;           // [keys, columns] rotated
  Grids<float> key_panels;    // [keys / kPanel, w, kPanel] rotated
  Grids<float> value_panels;  // [keys / kPanel, w, kPanel]
  Grid<float> key_grads;      // [keys, columns] dS^T Q, over the query heads of the group
  Grid<float> value_grads;    // [keys, columns]
  Grid<float> queries;        // [kBlock, columns] rotated, times log2(e) / sqrt(w)
  Grid<float> query_grads;    // [kBlock, columns] dS K
  Grid<float> output_grads;   // [kBlock, columns] dy
  Grid<float> weights;        // [kBlock, keys] P
  Grid<float> score_grads;    // [kBlock, keys] dS

  explicit BackwardScratch(Scratch& from)
      : keys(from.key_rows()),
        key_panels(from.panels()),
        value_panels(from.panels()),
        key_grads(from.key_rows()),
        value_grads(from.key_rows()),
        queries(from.query_rows()),
        query_grads(from.query_rows()),
        output_grads(from.query_rows()),
        weights(from.scores()),
        score_grads(from.scores()) {}
};

// What a row of scores needs besides them; zero for padding.
struct RowTerms {
  float lse[kBlock];    // in base 2
  float inner[kBlock];  // dy . y
};

template <typename C>
static inline RowTerms row_terms(const AttentionSizes& sizes, const QueryBlock& block,
                                 Grid<const C> y, Grid<const float> output_grads,
                                 const float* lse) {
  RowTerms terms = {};
  for (int64_t row = 0; row < block.rows; ++row) {
    const int64_t t = block.begin + row;
    const C* const output = y[t];
    const float* const grad = output_grads[row];
    Vec inner = zero();
    sweep(sizes.width, [&](int64_t i, auto lanes) {
      inner = fma(lanes.load(output + i), lanes.load(grad + i), inner);
    });
    terms.inner[row] = sum(inner);
    terms.lse[row] = lse[t] * kLog2e;
  }
  return terms;
}

// P and dS of a block.
[[gnu::noinline]] static void weights_and_score_grads(const AttentionSizes& sizes,
                                                      const QueryBlock& block,
                                                      const RowTerms& terms,
                                                      const BackwardScratch& scratch) {
  for_score_tiles(sizes, block, scratch.queries, scratch.key_panels,
                  [&]<int vectors>(Tile<vectors>& tile, int64_t row, int64_t key) {
                    hide_later(tile, block.begin + row, key, -__builtin_inff());
                    for (int i = 0; i < kRows; ++i) {
                      const Vec lse = broadcast(terms.lse[row + i]);
                      for (int v = 0; v < vectors; ++v) tile.at[i][v] = exp2(tile.at[i][v] - lse);
                    }
                    store_tile(tile, scratch.weights.from(row, key));
                  });
  for_score_tiles(sizes, block, scratch.output_grads, scratch.value_panels,
                  [&]<int vectors>(Tile<vectors>& tile, int64_t row, int64_t key) {
                    const Grid<const float> weights = scratch.weights.from(row, key);
                    for (int i = 0; i < kRows; ++i) {
                      const Vec inner = broadcast(terms.inner[row + i]);
                      for (int v = 0; v < vectors; ++v) {
                        const Vec weight = load(weights[i] + v * kLanes);
                        tile.at[i][v] = weight * (tile.at[i][v] - inner);
                      }
                    }
                    store_tile(tile, scratch.score_grads.from(row, key));
                  });
}

// One block of queries of one head: stores its dq, adds its part of dk and dv.
template <typename C>
static inline void backward_block(const AttentionBackward<C>& args, const AttentionSizes& sizes,
                                  const QueryBlock& block, const Rotation& rotation,
                                  const Unit& unit, int64_t head, const BackwardScratch& scratch) {
  const auto queries = unit.query(args.qkv, head);
  const auto grads = unit.output(args.dy, head);
  pack(sizes, block.begin, block.padded, scratch.queries, [&](int64_t t, float* line) {
    rotate(rotation, t, 1.0F, kLog2e * sizes.scale, queries[t], line);
  });
  pack(sizes, block.begin, block.padded, scratch.output_grads,
       [&](int64_t t, float* line) { scale_row(1.0F, grads[t], sizes.width, line); });
  const RowTerms terms = row_terms(sizes, block, unit.output(args.y, head), scratch.output_grads,
                                   unit.per_query(args.lse, head));
  weights_and_score_grads(sizes, block, terms, scratch);
  add_over_queries(sizes, block, scratch.weights, scratch.output_grads, scratch.value_grads);
  add_over_queries(sizes, block, scratch.score_grads, scratch.queries, scratch.key_grads);
  clear(scratch.query_grads.at, scratch.query_grads[block.padded]);
  add_over_keys(sizes, block, scratch.score_grads, scratch.keys, scratch.query_grads);
  const auto query_grads = unit.query(args.dqkv, head);
  for (int64_t row = 0; row < block.rows; ++row) {
    const int64_t t = block.begin + row;
    rotate(rotation, t, -1.0F, sizes.scale, scratch.query_grads[row], query_grads[t]);
  }
}

// Keys and values of a unit, and zeros for their gradients.
template <typename C>
static inline void pack_unit(const AttentionBackward<C>& args, const AttentionSizes& sizes,
                             const Rotation& rotation, const Unit& unit,
                             const BackwardScratch& scratch) {
  const auto keys = unit.key(args.qkv), values = unit.value(args.qkv);
  pack(sizes, 0, sizes.keys, scratch.keys,
       [&](int64_t t, float* line) { rotate(rotation, t, 1.0F, 1.0F, keys[t], line); });
  for (int64_t key = 0; key < sizes.keys; key += kLanes) {
    fill_panel(sizes, key, scratch.keys.from(key), scratch.key_panels);
    const Grid<float> rows = scratch.query_grads;  // not yet in use
    pack(sizes, key, kLanes, rows,
         [&](int64_t t, float* line) { scale_row(1.0F, values[t], sizes.width, line); });
    fill_panel(sizes, key, rows, scratch.value_panels);
  }
  clear(scratch.key_grads.at, scratch.key_grads[sizes.keys]);
  clear(scratch.value_grads.at, scratch.value_grads[sizes.keys]);
}

template <typename C>
static void backward_unit(const AttentionBackward<C>& args, const AttentionSizes& sizes,
                          int64_t index, float* memory) {
  Scratch from(sizes, memory);
  const BackwardScratch scratch(from);
  const Rotation rotation(args.cos, args.sin, sizes.width);
  const Unit unit(args.shape, index);
  pack_unit(args, sizes, rotation, unit, scratch);
  for (int64_t head = unit.first_head; head < unit.last_head; ++head) {
    for (int64_t begin = 0; begin < sizes.length; begin += kBlock) {
      backward_block(args, sizes, QueryBlock(begin, sizes.length), rotation, unit, head, scratch);
    }
  }
  // The packed queries carry log2(e) / sqrt(w): times ln 2, the scale of dk remains.
  const auto key_grads = unit.key(args.dqkv), value_grads = unit.value(args.dqkv);
  for (int64_t t = 0; t < sizes.length; ++t) {
    rotate(rotation, t, -1.0F, kLn2, scratch.key_grads[t], key_grads[t]);
    scale_row(1.0F, scratch.value_grads[t], sizes.width, value_grads[t]);
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
