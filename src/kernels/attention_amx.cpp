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
  const TileSizes sizes(shape);
  TileScratch forward(nullptr), backward(nullptr);
  TileForwardScratch(sizes, forward);
  TileBackwardScratch(sizes, backward);
  return most(forward.floats(), backward.floats());
}

// run_unit(args, sizes, unit, scratch) for every unit.
template <typename Scratch, typename Args, typename RunUnit>
void run_units(const Args& args, int64_t begin, int64_t end, float* memory, RunUnit run_unit) {
  const TileSizes sizes(args.shape);
  TileScratch from(memory);
  const Scratch scratch(sizes, from);
  const TileRegisters registers;
  for (int64_t unit = begin; unit < end; ++unit) run_unit(args, sizes, unit, scratch);
}

void forward(const Attention<Bf16>& args, int64_t begin, int64_t end, float* memory) {
  run_units<TileForwardScratch>(args, begin, end, memory, forward_unit_in_tiles);
}
void backward(const AttentionBackward<Bf16>& args, int64_t begin, int64_t end, float* memory) {
  run_units<TileBackwardScratch>(args, begin, end, memory, backward_unit_in_tiles);
}

}  // namespace

extern const AttentionKernels<Bf16> tile_attention;
const AttentionKernels<Bf16> tile_attention = {scratch_floats, forward, backward};

}  // namespace wavroute::kernels::WAVROUTE_ISA
