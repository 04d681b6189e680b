// Every product is cut into tiles that hold a visible pair of query and key, so that the upper
// triangle costs nothing but the padding of the diagonal's tiles. A block of queries keeps whole
// rows of scores: memory grows with T, not with T^2, and no softmax is ever rescaled.
#include "kernels/attention.h"

#include "kernels/attention_backward.h"
#include "kernels/attention_forward.h"
#include "kernels/kernels.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// The backward pass needs more.
int64_t scratch_floats(const AttentionShape& shape) {
  const AttentionSizes sizes(shape);
  Scratch counted(sizes, nullptr);
  BackwardScratch{counted};
  return counted.floats();
}

template <typename C>
void forward(const Attention<C>& args, int64_t begin, int64_t end, float* scratch) {
  const AttentionSizes sizes(args.shape);
  for (int64_t unit = begin; unit < end; ++unit) forward_unit(args, sizes, unit, scratch);
}

template <typename C>
void backward(const AttentionBackward<C>& args, int64_t begin, int64_t end, float* scratch) {
  const AttentionSizes sizes(args.shape);
  for (int64_t unit = begin; unit < end; ++unit) backward_unit(args, sizes, unit, scratch);
}

template <typename C>
constexpr AttentionKernels<C> kTable = {scratch_floats, forward<C>, backward<C>};

}  // namespace

extern const ByType<AttentionKernels> attention_kernels;
const ByType<AttentionKernels> attention_kernels = {kTable<float>, kTable<Bf16>};

}  // namespace wavroute::kernels::WAVROUTE_ISA
