// Forward of one key-value head with its query heads. Included by attention.cpp only.
#pragma once

#include "kernels/attention_causal.h"
#include "kernels/attention_pack.h"

namespace wavroute::kernels::WAVROUTE_ISA {

struct ForwardScratch {
  Grids<float> key_panels;  // [keys / kPanel, w, kPanel] rotated
  Grid<float> values;       // [keys, columns]
  Grid<float> queries;      // [kBlock, columns] rotated, times log2(e) / sqrt(w)
  Grid<float> sums;         // [kBlock, columns]
  Grid<float> scores;       // [kBlock, keys] base-2 scores, then their exponentials

  explicit ForwardScratch(Scratch& from)
      : key_panels(from.panels()),
        values(from.key_rows()),
        queries(from.query_rows()),
        sums(from.query_rows()),
        scores(from.scores()) {}
};

// Scores of a block, and the maximum of each row.
[[gnu::noinline]] static void score(const AttentionSizes& sizes, const QueryBlock& block,
                                    const ForwardScratch& scratch, float (&maxima)[kBlock]) {
  Vec running[kBlock];
  for (Vec& maximum : running) maximum = broadcast(-__builtin_inff());
  for_score_tiles(sizes, block, scratch.queries, scratch.key_panels,
                  [&]<int vectors>(Tile<vectors>& tile, int64_t row, int64_t key) {
                    hide_later(tile, block.begin + row, key, -__builtin_inff());
                    for (int i = 0; i < kRows; ++i) {
                      Vec maximum = running[row + i];
                      for (int v = 0; v < vectors; ++v) maximum = max(maximum, tile.at[i][v]);
                      running[row + i] = maximum;
                    }
                    store_tile(tile, scratch.scores.from(row, key));
                  });
  for (int64_t row = 0; row < kBlock; row += kLanes) {
    store(maxima + row, largest_of_each(running + row));
  }
}

// scores := 2^(scores - maximum of the row); totals: the sums of the rows.
[[gnu::noinline]] static void exponentiate(const QueryBlock& block, Grid<float> scores,
                                           const float (&maxima)[kBlock], float (&totals)[kBlock]) {
  Vec running[kBlock];
  for (int64_t row = 0; row < kBlock; ++row) {
    Vec total = zero();
    if (row < block.padded) {
      float* const line = scores[row];
      const int64_t visible = block.begin + (row / kRows + 1) * kRows;  // to some row of the tile
      const Vec maximum = broadcast(maxima[row]);
      for (int64_t key = 0; key < visible; key += kLanes) {
        const Vec weight = exp2(load(line + key) - maximum);
        total += weight;
        store(line + key, weight);
      }
    }
    running[row] = total;
  }
  for (int64_t row = 0; row < kBlock; row += kLanes) {
    store(totals + row, sum_of_each(running + row));
  }
}

// One block of queries of one head.
template <typename C>
static inline void forward_block(const AttentionSizes& sizes, const QueryBlock& block,
                                 const Rotation& rotation, Grid<const C> queries,
                                 const ForwardScratch& scratch, Grid<C> y, float* lse) {
  pack(sizes, block.begin, block.padded, scratch.queries, [&](int64_t t, float* line) {
    rotate(rotation, t, 1.0F, kLog2e * sizes.scale, queries[t], line);
  });
  float maxima[kBlock], totals[kBlock];
  score(sizes, block, scratch, maxima);
  exponentiate(block, scratch.scores, maxima, totals);
  clear(scratch.sums.at, scratch.sums[block.padded]);
  add_over_keys(sizes, block, scratch.scores, scratch.values, scratch.sums);
  for (int64_t row = 0; row < block.rows; ++row) {
    scale_row(1.0F / totals[row], scratch.sums[row], sizes.width, y[block.begin + row]);
  }
  sweep(block.rows, [&](int64_t row, auto lanes) {
    const Vec logsumexp = load(maxima + row) * kLn2 + log(load(totals + row));
    lanes.store(lse + block.begin + row, logsumexp);
  });
}

template <typename C>
static void forward_unit(const Attention<C>& args, const AttentionSizes& sizes, int64_t index,
                         float* memory) {
  Scratch from(sizes, memory);
  const ForwardScratch scratch(from);
  const Rotation rotation(args.cos, args.sin, sizes.width);
  const Unit unit(args.shape, index);
  const auto keys = unit.key(args.qkv), values = unit.value(args.qkv);
  for (int64_t key = 0; key < sizes.keys; key += kLanes) {
    const Grid<float> rows = scratch.sums;  // not yet in use
    pack(sizes, key, kLanes, rows,
         [&](int64_t t, float* line) { rotate(rotation, t, 1.0F, 1.0F, keys[t], line); });
    fill_panel(sizes, key, rows, scratch.key_panels);
  }
  pack(sizes, 0, sizes.keys, scratch.values,
       [&](int64_t t, float* line) { scale_row(1.0F, values[t], sizes.width, line); });
  for (int64_t head = unit.first_head; head < unit.last_head; ++head) {
    for (int64_t begin = 0; begin < sizes.length; begin += kBlock) {
      forward_block(sizes, QueryBlock(begin, sizes.length), rotation, unit.query(args.qkv, head),
                    scratch, unit.output(args.y, head), unit.per_query(args.lse, head));
    }
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
