// The kernels of a step besides products, attention and the stream: SwiGLU, cross-entropy, AdamW,
// conversions. See stream.h for ranges and partial sums.
#pragma once

#include <cstdint>

#include "kernels/grid.h"
#include "kernels/types.h"

namespace wavroute::kernels {

// gate_up [tokens, 2 hidden]: the gate's columns before the up's.  a = silu(gate) * up
template <typename C>
struct Swiglu {
  int64_t hidden = 0;
  Grid<const C> gate_up;
  Grid<C> a;  // [tokens, hidden]
};

// In place: gate_up becomes its gradient, da becomes a (which the gradient of `down` needs).
template <typename C>
struct SwigluBackward {
  int64_t hidden = 0;
  Grid<C> gate_up;  // [tokens, 2 hidden]
  Grid<C> da;       // [tokens, hidden]
};

// loss = logsumexp(logits) - logits[target], per row, in nats; 0 for a target that is not scored.
// With `weight`, the logits become weight * (softmax - onehot), and 0 where the row isn't scored.
template <typename C>
struct CrossEntropy {
  int64_t vocabulary = 0;
  Grid<C> logits;                    // [tokens, vocabulary]
  const int64_t* targets = nullptr;  // [tokens]
  int64_t unscored = -100;
  bool want_grad = false;
  float weight = 1.0F;
  float* loss = nullptr;  // [tokens]
};

// AdamW (arXiv 1711.05101) on elements [begin, end) of flat buffers:
//   value *= 1 - lr * weight_decay;  m, v: moving means of g and g^2, g = grad_scale * grad
//   value -= lr * (m / correction1) / (sqrt(v / correction2) + eps)
struct AdamwStep {
  float* value = nullptr;
  float* grad = nullptr;  // zero after the step
  float* first = nullptr;
  float* second = nullptr;
  Bf16* copy = nullptr;  // the new values in bf16; null: none
  float lr = 0.0F, beta1 = 0.0F, beta2 = 0.0F, eps = 0.0F, weight_decay = 0.0F;
  float correction1 = 1.0F, correction2 = 1.0F;  // 1 - beta^t
  float grad_scale = 1.0F;                       // clipping
};

template <typename C>
struct ActivationKernels {
  void (*swiglu)(const Swiglu<C>&, int64_t begin, int64_t end);
  void (*swiglu_backward)(const SwigluBackward<C>&, int64_t begin, int64_t end);
  void (*cross_entropy)(const CrossEntropy<C>&, int64_t begin, int64_t end);
};

struct FlatKernels {
  void (*adamw)(const AdamwStep&, int64_t begin, int64_t end);
  // Sum of x^2 over [begin, end), accumulated in double per vector lane.
  double (*sum_of_squares)(const float* x, int64_t begin, int64_t end);
  void (*add_bf16)(const Bf16* from, float* to, int64_t begin, int64_t end);  // to += from
};

}  // namespace wavroute::kernels
