// The causal products of one block of queries with all keys that it sees. Each pass over the scores
// is a function of its own: inlined into one another, they would share the registers that their
// loops need. Included by attention.cpp only.
#pragma once

#include "kernels/attention_layout.h"

namespace wavroute::kernels::WAVROUTE_ISA {

// left panels^T for the tiles with a visible key: finish(tile, row, key) gets each, its first row
// (of the block) and its first key.
//   left    [kBlock, columns]
//   panels  [keys / kPanel, w, kPanel]
template <typename Finish>
static inline void for_score_tiles(const AttentionSizes& sizes, const QueryBlock& block,
                                   Grid<const float> left, const Grids<float>& panels,
                                   Finish finish) {
  for (int64_t key = 0; key < block.begin + block.padded; key += kPanel) {
    const int64_t first_row = most(0, key - block.begin) / kRows * kRows;
    for (int64_t row = first_row; row < block.padded; row += kRows) {
      const int64_t visible = least(kPanel, block.begin + row + kRows - key);
      with_vectors(round_up(visible, kLanes) / kLanes, [&](auto vectors) {
        Tile<decltype(vectors)::value> tile;
        multiply(tile, plain(left.from(row)), panels[key / kPanel], sizes.width);
        finish(tile, row, key);
      });
    }
  }
}

// Sets the scores of later keys to `hidden`; `position` is that of the tile's first row.
template <int vectors>
static inline void hide_later(Tile<vectors>& tile, int64_t position, int64_t key, float hidden) {
  if (key + vectors * kLanes - 1 <= position) return;
  const IntVec lane = lane_numbers();
  for (int i = 0; i < kRows; ++i) {
    const auto last = static_cast<int32_t>(position + i - key);
    for (int v = 0; v < vectors; ++v) {
      tile.at[i][v] = lane + v * kLanes > last ? broadcast(hidden) : tile.at[i][v];
    }
  }
}

// sums += weights right, over the visible keys
//   weights  [kBlock, keys]
//   right    [keys, columns]
//   sums     [kBlock, columns]
[[gnu::noinline]] static void add_over_keys(const AttentionSizes& sizes, const QueryBlock& block,
                                            Grid<const float> weights, Grid<const float> right,
                                            Grid<float> sums) {
  for (int64_t key = 0; key < block.begin + block.padded; key += kKeyTile) {
    const int64_t first_row = most(0, key - block.begin) / kRows * kRows;
    for_column_tiles(sizes.columns, [&](int64_t column, auto vectors) {
      for (int64_t row = first_row; row < block.padded; row += kRows) {
        const int64_t visible = least(kKeyTile, block.begin + row + kRows - key);
        const Grid<float> sum = sums.from(row, column);
        Tile<decltype(vectors)::value> tile;
        load_tile(tile, sum);
        multiply(tile, plain(weights.from(row, key)), right.from(key, column), visible);
        store_tile(tile, sum);
      }
    });
  }
}

// sums += weights^T right, over the queries of the block
//   weights  [kBlock, keys]
//   right    [kBlock, columns]
//   sums     [keys, columns]
[[gnu::noinline]] static void add_over_queries(const AttentionSizes& sizes, const QueryBlock& block,
                                               Grid<const float> weights, Grid<const float> right,
                                               Grid<float> sums) {
  for_column_tiles(sizes.columns, [&](int64_t column, auto vectors) {
    for (int64_t key = 0; key < block.begin + block.rows; key += kRows) {
      const int64_t first_row = most(0, key - block.begin);
      const Grid<float> sum = sums.from(key, column);
      Tile<decltype(vectors)::value> tile;
      load_tile(tile, sum);
      multiply(tile, transposed(weights.from(first_row, key)), right.from(first_row, column),
               block.rows - first_row);
      store_tile(tile, sum);
    }
  });
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
