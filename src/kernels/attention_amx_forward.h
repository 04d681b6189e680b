// Forward of one key-value head with its query heads, in tiles. Included by attention_amx.cpp only.
#pragma once

#include "kernels/attention_amx_pack.h"

namespace wavroute::kernels::WAVROUTE_ISA {

struct TileForwardScratch {
  Bf16* key_panels;    // [keys / 16] panels over w: rotated, transposed
  Bf16* value_panels;  // [columns / 16] panels over T
  Bf16* queries;       // [kTiles, columns] rotated, times log2(e) / sqrt(w)
  Grid<float> scores;  // [kTiles, keys] base-2 scores
  Grid<Bf16> weights;  // [kTiles, keys] their exponentials
  Grid<float> sums;    // [kTiles, columns]

  TileForwardScratch(const TileSizes& sizes, TileScratch& from)
      : key_panels(from.take<Bf16>(sizes.keys * sizes.columns)),
        value_panels(from.take<Bf16>(sizes.keys * sizes.columns)),
        queries(from.take<Bf16>(kTiles * sizes.columns)),
        scores(from.take_rows<float>(kTiles, odd_lines<float>(sizes.keys))),
        weights(from.take_rows<Bf16>(kTiles, odd_lines<Bf16>(sizes.keys))),
        sums(from.take_rows<float>(kTiles, sizes.columns)) {}
};

// The last kTiles keys that row `row` of a block may see are in two vectors; keys after its own
// position are read as minus infinity.
static inline void hide_later(int64_t row, Vec& first, Vec& second) {
  const IntVec lane = lane_numbers();
  const auto last = static_cast<int32_t>(row);
  const Vec hidden = broadcast(-__builtin_inff());
  first = lane > last ? hidden : first;
  second = lane + kLanes > last ? hidden : second;
}

// The scores of row `row` of a block that begins at `begin`, two vectors at a time.
template <typename Body>
static inline void for_visible(const float* scores, int64_t begin, int64_t row, Body body) {
  for (int64_t key = 0; key < begin; key += kTiles) {
    body(key, load(scores + key), load(scores + key + kLanes));
  }
  Vec first = load(scores + begin), second = load(scores + begin + kLanes);
  hide_later(row, first, second);
  body(begin, first, second);
}

// weights := 2^(scores - maximum of the row), for a block of queries from `begin` on; totals: the
// sums of the rows, before rounding.
[[gnu::noinline]] static void softmax_of_tiles(int64_t begin, const TileForwardScratch& scratch,
                                               float (&maxima)[kTiles], float (&totals)[kTiles]) {
  for (int64_t tile = 0; tile < kTiles; tile += kTile) {
    Vec of_row[kTile];
    for (int64_t row = 0; row < kTile; ++row) {
      Vec largest = broadcast(-__builtin_inff());
      for_visible(
          scratch.scores[tile + row], begin, tile + row,
          [&](int64_t, Vec first, Vec second) { largest = max(largest, max(first, second)); });
      of_row[row] = largest;
    }
    store(maxima + tile, largest_of_each(of_row));
    for (int64_t row = 0; row < kTile; ++row) {
      const Vec maximum = broadcast(maxima[tile + row]);
      Bf16* const weights = scratch.weights[tile + row];
      Vec total = zero();
      for_visible(scratch.scores[tile + row], begin, tile + row,
                  [&](int64_t key, Vec first, Vec second) {
                    first = exp2(first - maximum), second = exp2(second - maximum);
                    total += first + second;
                    store_both(weights + key, first, second);
                  });
      of_row[row] = total;
    }
    store(totals + tile, sum_of_each(of_row));
  }
}

// One block of kTiles queries of one head, from `begin` on.
static inline void forward_tiles(const TileSizes& sizes, int64_t begin, const Rotation& rotation,
                                 Grid<const Bf16> queries, const TileForwardScratch& scratch,
                                 Grid<Bf16> y, float* lse) {
  for (int64_t row = 0; row < kTiles; row += kTile) {
    pack_tile(sizes, begin + row, scratch.queries + row * sizes.columns,
              [&](int64_t t, Bf16* line) {
                rotate(rotation, t, 1.0F, kLog2e * sizes.scale, queries[t], line);
              });
  }
  const int64_t visible = begin + kTiles;
  for (int64_t key = 0; key < visible; key += kTiles) {
    multiply<false>({scratch.queries, sizes.columns},
                    {scratch.key_panels + key * sizes.columns, sizes.width_panel()}, sizes.columns,
                    scratch.scores.from(0, key));
  }
  float maxima[kTiles], totals[kTiles];
  softmax_of_tiles(begin, scratch, maxima, totals);
  for (int64_t c = 0; c < sizes.columns; c += kTiles) {
    multiply<false>(scratch.weights, {scratch.value_panels + c * sizes.keys, sizes.length_panel()},
                    visible, scratch.sums.from(0, c));
  }
  const int64_t rows = least(kTiles, sizes.length - begin);
  for (int64_t row = 0; row < rows; ++row) {
    scale_row(1.0F / totals[row], scratch.sums[row], sizes.width, y[begin + row]);
  }
  sweep(rows, [&](int64_t row, auto lanes) {
    lanes.store(lse + begin + row, load(maxima + row) * kLn2 + log(load(totals + row)));
  });
}

static inline void forward_unit_in_tiles(const Attention<Bf16>& args, const TileSizes& sizes,
                                         int64_t index, const TileForwardScratch& scratch) {
  const Rotation rotation(args.cos, args.sin, sizes.width);
  const Unit unit(args.shape, index);
  const auto keys = unit.key(args.qkv), values = unit.value(args.qkv);
  for (int64_t key = 0; key < sizes.keys; key += kTile) {
    Bf16* const rows = scratch.queries;  // not yet in use
    pack_tile(sizes, key, rows,
              [&](int64_t t, Bf16* line) { rotate(rotation, t, 1.0F, 1.0F, keys[t], line); });
    transpose_to_panel(sizes, rows, scratch.key_panels + key * sizes.columns);
    pack_tile(sizes, key, rows,
              [&](int64_t t, Bf16* line) { copy_row(values[t], sizes.width, line); });
    interleave_in_panels(sizes, rows, key, scratch.value_panels);
  }
  for (int64_t head = unit.first_head; head < unit.last_head; ++head) {
    for (int64_t begin = 0; begin < sizes.length; begin += kTiles) {
      forward_tiles(sizes, begin, rotation, unit.query(args.qkv, head), scratch,
                    unit.output(args.y, head), unit.per_query(args.lse, head));
    }
  }
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
