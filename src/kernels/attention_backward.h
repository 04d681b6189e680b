// Backward of one key-value head with its query heads, from the logsumexp of the forward pass:
//   P = 2^(S - lse), dP = dy V^T, dS = P (dP - rowsum(dy y)),
//   dV = P^T dy, dQ = dS K, dK = dS^T Q (the last two before the inverse rotation and the scale).
// Included by attention.cpp only.
#pragma once

#include "kernels/attention_causal.h"
#include "kernels/attention_pack.h"

namespace wavroute::kernels::WAVROUTE_ISA {

struct BackwardScratch {
  float* keys;          // [keys, columns] rotated
  float* key_panels;    // [keys / kPanel, w, kPanel] rotated
  float* value_panels;  // [keys / kPanel, w, kPanel]
  float* key_grads;     // [keys, columns] dS^T Q, over the query heads of the group
  float* value_grads;   // [keys, columns]
  float* queries;       // [kBlock, columns] rotated, times log2(e) / sqrt(w)
  float* query_grads;   // [kBlock, columns] dS K
  float* output_grads;  // [kBlock, columns] dy
  float* weights;       // [kBlock, score_stride] P
  float* score_grads;   // [kBlock, score_stride] dS

  static int64_t floats(const Layout& layout) {
    return 5 * layout.matrix_floats() + 3 * layout.block_floats() + 2 * layout.score_floats();
  }
  BackwardScratch(const Layout& layout, float* at)
      : keys(at),
        key_panels(keys + layout.matrix_floats()),
        value_panels(key_panels + layout.matrix_floats()),
        key_grads(value_panels + layout.matrix_floats()),
        value_grads(key_grads + layout.matrix_floats()),
        queries(value_grads + layout.matrix_floats()),
        query_grads(queries + layout.block_floats()),
        output_grads(query_grads + layout.block_floats()),
        weights(output_grads + layout.block_floats()),
        score_grads(weights + layout.score_floats()) {}
};

// What a row of scores needs besides them; zero for padding.
struct RowTerms {
  float lse[kBlock];    // in base 2
  float inner[kBlock];  // dy . y
};

template <typename C>
static inline RowTerms row_terms(const Layout& layout, const Block& block, HeadRows<const C> y,
                                 const float* output_grads, const float* lse) {
  RowTerms terms = {};
  for (int64_t row = 0; row < block.rows; ++row) {
    const int64_t t = block.begin + row;
    const C* const output = y[t];
    const float* const grad = output_grads + row * layout.columns;
    Vec inner = zero();
    sweep(layout.width, [&](int64_t i, auto lanes) {
      inner = fma(lanes.load(output + i), lanes.load(grad + i), inner);
    });
    terms.inner[row] = sum(inner);
    terms.lse[row] = lse[t] * kLog2e;
  }
  return terms;
}

// P and dS of a block.
[[gnu::noinline]] static void weights_and_score_grads(const Layout& layout, const Block& block,
                                                      const RowTerms& terms,
                                                      const BackwardScratch& scratch) {
  const int64_t stride = layout.score_stride;
  for_score_tiles(layout, block, scratch.queries, scratch.key_panels,
                  [&]<int vectors>(Tile<vectors>& tile, int64_t row, int64_t key) {
                    hide_later(tile, block.begin + row, key, -__builtin_inff());
                    for (int i = 0; i < kRows; ++i) {
                      const Vec lse = broadcast(terms.lse[row + i]);
                      for (int v = 0; v < vectors; ++v) tile.at[i][v] = exp2(tile.at[i][v] - lse);
                    }
                    store_tile(tile, scratch.weights + row * stride + key, stride);
                  });
  for_score_tiles(layout, block, scratch.output_grads, scratch.value_panels,
                  [&]<int vectors>(Tile<vectors>& tile, int64_t row, int64_t key) {
                    const float* const weights = scratch.weights + row * stride + key;
                    for (int i = 0; i < kRows; ++i) {
                      const Vec inner = broadcast(terms.inner[row + i]);
                      for (int v = 0; v < vectors; ++v) {
                        const Vec weight = load(weights + i * stride + v * kLanes);
                        tile.at[i][v] = weight * (tile.at[i][v] - inner);
                      }
                    }
                    store_tile(tile, scratch.score_grads + row * stride + key, stride);
                  });
}

// One block of queries of one head: stores its dq, adds its part of dk and dv.
template <typename C>
static inline void backward_block(const AttentionBackward<C>& args, const Layout& layout,
                                  const Block& block, const Rotation& rotation, const Unit& unit,
                                  int64_t head, const BackwardScratch& scratch) {
  const auto queries = unit.query(args.qkv, head);
  const auto grads = unit.output(args.dy, head);
  pack(layout, block.begin, block.padded, scratch.queries, [&](int64_t t, float* line) {
    rotate(rotation, t, 1.0F, kLog2e * layout.scale, queries[t], line);
  });
  pack(layout, block.begin, block.padded, scratch.output_grads,
       [&](int64_t t, float* line) { scale_row(1.0F, grads[t], layout.width, line); });
  const RowTerms terms = row_terms(layout, block, unit.output(args.y, head), scratch.output_grads,
                                   unit.per_query(args.lse, head));
  weights_and_score_grads(layout, block, terms, scratch);
  add_over_queries(layout, block, scratch.weights, scratch.output_grads, scratch.value_grads);
  add_over_queries(layout, block, scratch.score_grads, scratch.queries, scratch.key_grads);
  clear(scratch.query_grads, scratch.query_grads + block.padded * layout.columns);
  add_over_keys(layout, block, scratch.score_grads, scratch.keys, scratch.query_grads);
  const auto query_grads = unit.query(args.dqkv, head);
  for (int64_t row = 0; row < block.rows; ++row) {
    const int64_t t = block.begin + row;
    rotate(rotation, t, -1.0F, layout.scale, scratch.query_grads + row * layout.columns,
           query_grads[t]);
  }
}

// Keys and values of a unit, and zeros for their gradients.
template <typename C>
static inline void pack_unit(const AttentionBackward<C>& args, const Layout& layout,
                             const Rotation& rotation, const Unit& unit,
                             const BackwardScratch& scratch) {
  const auto keys = unit.key(args.qkv), values = unit.value(args.qkv);
  pack(layout, 0, layout.keys, scratch.keys,
       [&](int64_t t, float* line) { rotate(rotation, t, 1.0F, 1.0F, keys[t], line); });
  for (int64_t key = 0; key < layout.keys; key += kLanes) {
    fill_panel(layout, key, scratch.keys + key * layout.columns, scratch.key_panels);
    float* const rows = scratch.query_grads;  // not yet in use
    pack(layout, key, kLanes, rows,
         [&](int64_t t, float* line) { scale_row(1.0F, values[t], layout.width, line); });
    fill_panel(layout, key, rows, scratch.value_panels);
  }
  clear(scratch.key_grads, scratch.key_grads + layout.matrix_floats());
  clear(scratch.value_grads, scratch.value_grads + layout.matrix_floats());
}

template <typename C>
static void backward_unit(const AttentionBackward<C>& args, const Layout& layout, int64_t index,
                          float* memory) {
  const BackwardScratch scratch(layout, memory);
  const Rotation rotation{args.cos, args.sin, layout.width / 2};
  const Unit unit(args.shape, index);
  pack_unit(args, layout, rotation, unit, scratch);
  for (int64_t head = unit.first_head; head < unit.last_head; ++head) {
    for (int64_t begin = 0; begin < layout.length; begin += kBlock) {
      backward_block(args, layout, Block(begin, layout.length), rotation, unit, head, scratch);
    }
  }
  // The packed queries carry log2(e) / sqrt(w): times ln 2, the scale of dk remains.
  const auto key_grads = unit.key(args.dqkv), value_grads = unit.value(args.dqkv);
  for (int64_t t = 0; t < layout.length; ++t) {
    rotate(rotation, t, -1.0F, kLn2, scratch.key_grads + t * layout.columns, key_grads[t]);
    scale_row(1.0F, scratch.value_grads + t * layout.columns, layout.width, value_grads[t]);
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
