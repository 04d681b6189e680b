// The additive residual stream and the PreNorm, forward and backward, in one pass over memory.
//
// Shapes: `tokens` rows of d numbers. Kernels work on rows [begin, end); rows are independent
// except for sums over tokens, which go to the caller's partial sums: one partial per fixed range
// of rows keeps them the same with any number of threads.
// C: the compute type, float or Bf16.
#pragma once

#include <cstdint>

#include "kernels/grid.h"
#include "kernels/types.h"

namespace wavroute::kernels {

// h' = h + coefficient * scale * u;  x = gain * h' / rms(h'),  rms = sqrt(mean h'^2 + eps). Where
// rms is 0, x and the gradient of h' through it are 0.
template <typename C>
struct AddNorm {
  int64_t d = 0;
  Grid<const float> h;           // [tokens, d]
  Grid<const C> u;               // [tokens, d]; null: nothing is added
  const float* scale = nullptr;  // [d]; null: 1
  float coefficient = 1.0F;
  Grid<float> h_out;            // [tokens, d], may be h; null: not kept
  const float* gain = nullptr;  // [d]; null: no norm, x = h'
  float eps = 0.0F;
  Grid<C> x;                     // [tokens, d]; null: no norm is taken
  float* inverse_rms = nullptr;  // [tokens]; null: not kept
};

// The gradients of the above, at h' (which the forward kept):
//   dh = (first ? 0 : dh) + norm_backward(dx);   du = coefficient * scale * dh
template <typename C>
struct AddNormBackward {
  int64_t d = 0;
  Grid<const C> dx;                    // [tokens, d]; null: nothing came through the norm
  Grid<const float> h;                 // [tokens, d], h'; needed with dx and gain
  const float* inverse_rms = nullptr;  // [tokens]
  const float* gain = nullptr;         // [d]; null: no norm, dh += dx
  float* gain_grad = nullptr;          // [d], += sum of dx * h' / rms over the rows; null: none
  Grid<float> dh;                      // [tokens, d]
  bool first = false;                  // dh holds nothing yet
  Grid<const C> u;                     // [tokens, d]; needed with scale_grad
  const float* scale = nullptr;        // [d]; null: 1
  float coefficient = 1.0F;
  float* scale_grad = nullptr;  // [d], += sum of coefficient * dh * u over the rows; null: none
  Grid<C> du;                   // [tokens, d]; null: not wanted
};

template <typename C>
struct StreamKernels {
  void (*add_norm)(const AddNorm<C>&, int64_t begin, int64_t end);
  void (*add_norm_backward)(const AddNormBackward<C>&, int64_t begin, int64_t end);
};

}  // namespace wavroute::kernels
