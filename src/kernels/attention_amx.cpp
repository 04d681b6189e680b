// Attention with bf16 numbers on AMX, which multiplies them eight times as fast as vectors do. The
// factors of every product are rounded to bf16 (rotated queries and keys, softmax weights, their
// gradients), as they are where attention is composed of bf16 operators; sums, scores and softmax
// are float.
#include "kernels/attention_amx_backward.h"
#include "kernels/attention_amx_forward.h"
#include "kernels/kernels.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

int64_t scratch_floats(const AttentionShape& shape) {
  const TileLayout layout(shape);
  TileScratch forward(nullptr), backward(nullptr);
  TileForwardScratch(layout, forward);
  TileBackwardScratch(layout, backward);
  return most(forward.floats(), backward.floats());
}

void forward(const Attention<Bf16>& args, int64_t begin, int64_t end, float* memory) {
  const TileLayout layout(args.shape);
  TileScratch from(memory);
  const TileForwardScratch scratch(layout, from);
  const TileRegisters registers;
  for (int64_t unit = begin; unit < end; ++unit) {
    forward_unit_in_tiles(args, layout, unit, scratch);
  }
}

void backward(const AttentionBackward<Bf16>& args, int64_t begin, int64_t end, float* memory) {
  const TileLayout layout(args.shape);
  TileScratch from(memory);
  const TileBackwardScratch scratch(layout, from);
  const TileRegisters registers;
  for (int64_t unit = begin; unit < end; ++unit) {
    backward_unit_in_tiles(args, layout, unit, scratch);
  }
}

}  // namespace

extern const AttentionKernels<Bf16> tile_attention;
const AttentionKernels<Bf16> tile_attention = {scratch_floats, forward, backward};

}  // namespace wavroute::kernels::WAVROUTE_ISA
