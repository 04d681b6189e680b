// The arguments of the stream's kernels (kernels/stream.h) from ops/norm.h's, for kernels of any
// device. The gradients of gain and scale are the caller's to set.
#pragma once

#include "ops/norm.h"
#include "ops/typed.h"

namespace wavroute::ops {

inline int64_t token_count(const at::Tensor& h) {
  return h.size(-1) == 0 ? 0 : h.numel() / h.size(-1);
}

// scale in the kernels' form, [d].
inline at::Tensor full_scale(const Addend& addend, int64_t d) {
  if (!addend.scale.defined()) return {};
  return addend.scale.numel() == d ? addend.scale.detach()
                                   : addend.scale.detach().expand({d}).contiguous();
}

// h_out = h + addend, and its norm if `normed` has tensors for it.
template <typename C>
kernels::AddNorm<C> arguments(const at::Tensor& h, const Addend& addend, const at::Tensor& scale,
                              const at::Tensor& h_out, const Norm& norm, const Normed& normed) {
  kernels::AddNorm<C> args;
  args.d = h.size(-1);
  args.h = rows_in<float>(h);
  args.u = rows_in<C>(addend.u);
  args.scale = in<float>(scale);
  args.coefficient = static_cast<float>(addend.coefficient);
  args.h_out = rows_out<float>(h_out);
  args.gain = in<float>(norm.gain);
  args.eps = static_cast<float>(norm.eps);
  args.x = rows_out<C>(normed.x);
  args.inverse_rms = out<float>(normed.inverse_rms);
  return args;
}

template <typename C>
kernels::AddNormBackward<C> arguments(const at::Tensor& dx, const Normed& forward, const Norm& norm,
                                      const Addend& addend, const at::Tensor& scale,
                                      const at::Tensor& dh, bool first, const at::Tensor& du) {
  kernels::AddNormBackward<C> args;
  args.d = dh.size(-1);
  args.dx = rows_in<C>(dx);
  args.h = rows_in<float>(forward.h);
  args.inverse_rms = in<float>(forward.inverse_rms);
  args.gain = in<float>(norm.gain);
  args.dh = rows_out<float>(dh);
  args.first = first;
  args.u = rows_in<C>(addend.u);
  args.scale = in<float>(scale);
  args.coefficient = static_cast<float>(addend.coefficient);
  args.du = rows_out<C>(du);
  return args;
}

}  // namespace wavroute::ops
