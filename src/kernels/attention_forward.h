// Forward of one key-value head with its query heads. Included by attention.cpp only.
#pragma once

#include "kernels/attention_causal.h"
#include "kernels/attention_pack.h"

namespace wavroute::kernels::WAVROUTE_ISA {

struct ForwardScratch {
  float* key_panels;  // [keys / kPanel, w, kPanel] rotated
  float* values;      // [keys, columns]
  float* queries;     // [kBlock, columns] rotated, times log2(e) / sqrt(w)
  float* sums;        // [kBlock, columns]
  float* scores;      // [kBlock, score_stride] base-2 scores, then their exponentials

  ForwardScratch(const Layout& layout, float* at)
      : key_panels(at),
        values(key_panels + layout.matrix_floats()),
        queries(values + layout.matrix_floats()),
        sums(queries + layout.block_floats()),
        scores(sums + layout.block_floats()) {}
};

// Scores of a block, and the maximum of each row.
[[gnu::noinline]] static void score(const Layout& layout, const Block& block,
                                    const ForwardScratch& scratch, float (&maxima)[kBlock]) {
  Vec running[kBlock];
  for (Vec& maximum : running) maximum = broadcast(-__builtin_inff());
  for_score_tiles(layout, block, scratch.queries, scratch.key_panels,
                  [&]<int vectors>(Tile<vectors>& tile, int64_t row, int64_t key) {
                    hide_later(tile, block.begin + row, key, -__builtin_inff());
                    for (int i = 0; i < kRows; ++i) {
                      Vec maximum = running[row + i];
                      for (int v = 0; v < vectors; ++v) maximum = max(maximum, tile.at[i][v]);
                      running[row + i] = maximum;
                    }
                    store_tile(tile, scratch.scores + row * layout.score_stride + key,
                               layout.score_stride);
                  });
  for (int64_t row = 0; row < kBlock; row += kLanes) {
    store(maxima + row, largest_of_each(running + row));
  }
}

// scores := 2^(scores - maximum of the row); totals: the sums of the rows.
[[gnu::noinline]] static void exponentiate(const Layout& layout, const Block& block, float* scores,
                                           const float (&maxima)[kBlock], float (&totals)[kBlock]) {
  Vec running[kBlock];
  for (int64_t row = 0; row < kBlock; ++row) {
    Vec total = zero();
    if (row < block.padded) {
      float* const line = scores + row * layout.score_stride;
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
static inline void forward_block(const Layout& layout, const Block& block, const Rotation& rotation,
                                 HeadRows<const C> queries, const ForwardScratch& scratch,
                                 HeadRows<C> y, float* lse) {
  pack(layout, block.begin, block.padded, scratch.queries, [&](int64_t t, float* line) {
    rotate(rotation, t, 1.0F, kLog2e * layout.scale, queries[t], line);
  });
  float maxima[kBlock], totals[kBlock];
  score(layout, block, scratch, maxima);
  exponentiate(layout, block, scratch.scores, maxima, totals);
  clear(scratch.sums, scratch.sums + block.padded * layout.columns);
  add_over_keys(layout, block, scratch.scores, scratch.values, scratch.sums);
  for (int64_t row = 0; row < block.rows; ++row) {
    scale_row(1.0F / totals[row], scratch.sums + row * layout.columns, layout.width,
              y[block.begin + row]);
  }
  sweep(block.rows, [&](int64_t row, auto lanes) {
    const Vec logsumexp = load(maxima + row) * kLn2 + log(load(totals + row));
    lanes.store(lse + block.begin + row, logsumexp);
  });
}

template <typename C>
static void forward_unit(const Attention<C>& args, const Layout& layout, int64_t index,
                         float* memory) {
  const ForwardScratch scratch(layout, memory);
  const Rotation rotation{args.cos, args.sin, layout.width / 2};
  const Unit unit(args.shape, index);
  const auto keys = unit.key(args.qkv), values = unit.value(args.qkv);
  for (int64_t key = 0; key < layout.keys; key += kLanes) {
    float* const rows = scratch.sums;  // not yet in use
    pack(layout, key, kLanes, rows,
         [&](int64_t t, float* line) { rotate(rotation, t, 1.0F, 1.0F, keys[t], line); });
    fill_panel(layout, key, rows, scratch.key_panels);
  }
  pack(layout, 0, layout.keys, scratch.values,
       [&](int64_t t, float* line) { scale_row(1.0F, values[t], layout.width, line); });
  for (int64_t head = unit.first_head; head < unit.last_head; ++head) {
    for (int64_t begin = 0; begin < layout.length; begin += kBlock) {
      forward_block(layout, Block(begin, layout.length), rotation, unit.query(args.qkv, head),
                    scratch, unit.output(args.y, head), unit.per_query(args.lse, head));
    }
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
