// The tile registers of AMX and the product of bf16 matrices in them, with subnormal numbers taken
// as zero. Included by attention_amx sources only. The compiler must know AVX-512-BF16; only the
// assembler must know the tiles.
#pragma once

#include <cstdint>

#include "kernels/grid.h"
#include "kernels/vec.h"

namespace wavroute::kernels::WAVROUTE_ISA {

inline constexpr int64_t kTile = 16;          // rows of a tile, and floats of its row
inline constexpr int64_t kDepth = 32;         // bf16 numbers of its row: what one product sums over
inline constexpr int64_t kTiles = 2 * kTile;  // rows and columns of what multiply() makes at once

// While one exists, the eight tile registers of the calling thread have kTile rows of 64 bytes.
// Afterwards they are free: libtorch's products configure them in each call.
class TileRegisters {
 public:
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int tile = 0; tile < 8; ++tile) {
      shapes.row_bytes[tile] = 64;
      shapes.rows[tile] = kTile;
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes));
  }
  ~TileRegisters() { asm volatile("tilerelease"); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// gcc's intrinsics for these don't declare that they read memory. `stride`: elements between two
// rows.
template <int tile, typename T>
static inline void load_register(const T* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(stride * static_cast<int64_t>(sizeof(T))), "i"(tile)
               : "memory");
}
template <int tile>
static inline void store_register(float* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               :
               : "r"(to), "r"(stride * static_cast<int64_t>(sizeof(float))), "i"(tile)
               : "memory");
}
template <int tile>
static inline void clear_register() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}
// sum += left right, of registers
template <int sum, int left, int right>
static inline void multiply_registers() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(left), "i"(right));
}

// The matrix on the right of a product. Panel j holds the columns 16 j .. 16 j + 15 as [depth / 2,
// 16, 2]: two successive rows' numbers of a column are adjacent, as the product needs them.
struct TilePanels {
  const Bf16* at;
  int64_t panel;  // numbers from one panel to the next
};

// sums = left right, or sums += left right where `add`, for kTiles rows and kTiles columns:
//   left  [32, depth], right [depth, 32] (two panels), sums [32, 32]; depth is a multiple of
//   kDepth.
template <bool add>
static inline void multiply(Grid<const Bf16> left, TilePanels right, int64_t depth,
                            Grid<float> sums) {
  const int64_t stride = sums.pitch;
  float *const upper = sums[0], *const lower = sums[kTile];
  if constexpr (add) {
    load_register<0>(upper, stride);
    load_register<1>(upper + kTile, stride);
    load_register<2>(lower, stride);
    load_register<3>(lower + kTile, stride);
  } else {
    clear_register<0>();
    clear_register<1>();
    clear_register<2>();
    clear_register<3>();
  }
  for (int64_t k = 0; k < depth; k += kDepth) {
    const Bf16* const panel = right.at + k * kTile;
    load_register<4>(left[0] + k, left.pitch);
    load_register<6>(panel, kDepth);
    multiply_registers<0, 4, 6>();
    load_register<7>(panel + right.panel, kDepth);
    multiply_registers<1, 4, 7>();
    load_register<5>(left[kTile] + k, left.pitch);
    multiply_registers<2, 5, 6>();
    multiply_registers<3, 5, 7>();
  }
  store_register<0>(upper, stride);
  store_register<1>(upper + kTile, stride);
  store_register<2>(lower, stride);
  store_register<3>(lower + kTile, stride);
}

}  // namespace wavroute::kernels::WAVROUTE_ISA
