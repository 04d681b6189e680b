// kernels/elementwise.h on a GPU: all pointers lead to its memory. Functions throw
// std::runtime_error where the device refuses a kernel.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream_handle.h"
#include "kernels/elementwise.h"

namespace wavroute::kernels::cuda {

template <typename C>
void swiglu(const Swiglu<C>& args, int64_t rows, Stream stream);
template <typename C>
void swiglu_backward(const SwigluBackward<C>& args, int64_t rows, Stream stream);
// In place, without a second copy of the logits.
template <typename C>
void cross_entropy(const CrossEntropy<C>& args, int64_t rows, Stream stream);

// What changes from step to step. On the device, so that a recorded graph of a step reads it anew.
struct AdamwScalars {
  float lr = 0.0F;
  float correction1 = 1.0F, correction2 = 1.0F;
  float grad_scale = 1.0F;
  int32_t is_finite = 1;  // 0: nothing changes, the gradients included
};
// `count` elements of AdamwStep's buffers; its lr, corrections and grad_scale are not looked at.
void adamw(const AdamwStep& args, const AdamwScalars* scalars, int64_t count, Stream stream);

// *sum = the sum of x^2 in double, in an order that depends on `count` alone. `scratch`:
// square_parts(count) doubles.
void sum_of_squares(const float* x, int64_t count, double* scratch, double* sum, Stream stream);
[[nodiscard]] int64_t square_parts(int64_t count);

void add_bf16(const Bf16* from, float* to, int64_t count, Stream stream);  // to += from

}  // namespace wavroute::kernels::cuda
