// The additive stream's write with the PreNorm after it (kernels/stream.h), over tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/memory.h"

namespace wavroute::ops {

// What is added to a stream: coefficient * scale * u.
struct Addend {
  at::Tensor u;      // [..., d] in the compute type; undefined: nothing
  at::Tensor scale;  // [1] or [d] float; undefined: 1
  double coefficient = 1.0;
  at::Tensor scale_grad;  // like scale; the backward adds to it
};

struct Norm {
  at::Tensor gain;  // [d] float; undefined: no norm
  double eps = 0.0;
  at::Tensor gain_grad;  // [d]; the backward adds to it
};

struct Normed {
  at::Tensor h;            // [..., d] float; the argument itself if nothing was added
  at::Tensor x;            // [..., d] in the wanted type
  at::Tensor inverse_rms;  // [tokens] float; undefined without a norm
};

// h' = h + addend; x = gain h' / rms(h'). h [..., d] float, contiguous.
[[nodiscard]] Normed add_norm(Memory& memory, const at::Tensor& h, const Addend& addend,
                              const Norm& norm, at::ScalarType type);
// h' alone.
[[nodiscard]] at::Tensor add(Memory& memory, const at::Tensor& h, const Addend& addend);

// dh += the gradient of h' from dx [..., d] (dh = if `first`; none from an undefined dx); adds to
// the gradients that `norm` and `addend` name. Returns the gradient of addend.u, undefined without
// one; it may share memory with dh.
[[nodiscard]] at::Tensor add_norm_backward(Memory& memory, const at::Tensor& dx,
                                           const Normed& forward, const Norm& norm,
                                           const Addend& addend, at::Tensor dh, bool first);

}  // namespace wavroute::ops
