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
static inline void for_score_tiles(const Layout& layout, const Block& block, const float* left,
                                   const float* panels, Finish finish) {
  for (int64_t key = 0; key < block.begin + block.padded; key += kPanel) {
    const int64_t first_row = most(0, key - block.begin) / kRows * kRows;
    for (int64_t row = first_row; row < block.padded; row += kRows) {
      const int64_t visible = least(kPanel, block.begin + row + kRows - key);
      with_vectors(round_up(visible, kLanes) / kLanes, [&](auto vectors) {
        Tile<decltype(vectors)::value> tile;
        multiply(tile, Left{left + row * layout.columns, layout.columns, 1},
                 panels + key * layout.width, kPanel, layout.width);
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
//   weights  [kBlock, score_stride]
//   right    [keys, columns]
//   sums     [kBlock, columns]
[[gnu::noinline]] static void add_over_keys(const Layout& layout, const Block& block,
                                            const float* weights, const float* right, float* sums) {
  const int64_t stride = layout.columns;
  for (int64_t key = 0; key < block.begin + block.padded; key += kKeyTile) {
    const int64_t first_row = most(0, key - block.begin) / kRows * kRows;
    for_column_tiles(stride, [&](int64_t column, auto vectors) {
      for (int64_t row = first_row; row < block.padded; row += kRows) {
        const int64_t visible = least(kKeyTile, block.begin + row + kRows - key);
        float* const sum = sums + row * stride + column;
        Tile<decltype(vectors)::value> tile;
        load_tile(tile, sum, stride);
        multiply(tile, Left{weights + row * layout.score_stride + key, layout.score_stride, 1},
                 right + key * stride + column, stride, visible);
        store_tile(tile, sum, stride);
      }
    });
  }
}

// sums += weights^T right, over the queries of the block
//   weights  [kBlock, score_stride]
//   right    [kBlock, columns]
//   sums     [keys, columns]
[[gnu::noinline]] static void add_over_queries(const Layout& layout, const Block& block,
                                               const float* weights, const float* right,
                                               float* sums) {
  const int64_t stride = layout.columns;
  for_column_tiles(stride, [&](int64_t column, auto vectors) {
    for (int64_t key = 0; key < block.begin + block.rows; key += kRows) {
      const int64_t first_row = most(0, key - block.begin);
      float* const sum = sums + key * stride + column;
      Tile<decltype(vectors)::value> tile;
      load_tile(tile, sum, stride);
      multiply(tile, Left{weights + first_row * layout.score_stride + key, 1, layout.score_stride},
               right + first_row * stride + column, stride, block.rows - first_row);
      store_tile(tile, sum, stride);
    }
  });
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
