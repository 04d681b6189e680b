#include "ops/norm.h"

#include <ATen/ATen.h>

#include "ops/norm_arguments.h"
#include "ops/parallel.h"

namespace wavroute::ops {
namespace {

// h_out = h + addend, and its norm if `normed` has tensors for it. u and x are of `type`.
void run_add_norm(const at::Tensor& h, const Addend& addend, const at::Tensor& h_out,
                  const Norm& norm, const Normed& normed, at::ScalarType type) {
  const at::Tensor scale = full_scale(addend, h.size(-1));
  with_type(type, [&]<typename C>() {
    const auto args = arguments<C>(h, addend, scale, h_out, norm, normed);
    const auto kernel = kernels::chosen_kernels().stream->of<C>().add_norm;
    parallel_for(token_count(h), [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
}

}  // namespace

Normed add_norm(Memory& memory, const at::Tensor& h, const Addend& addend, const Norm& norm,
                at::ScalarType type) {
  const bool adds = addend.u.defined(), norms = norm.gain.defined();
  if (!norms && type == at::kFloat && !adds) return {h, h, {}};
  Normed result{adds ? memory.empty_like(h) : h, memory.empty(h.sizes(), type), {}};
  if (norms) result.inverse_rms = memory.empty({token_count(h)}, at::kFloat);
  run_add_norm(h, addend, adds ? result.h : at::Tensor(), norm, result, type);
  return result;
}

at::Tensor add(Memory& memory, const at::Tensor& h, const Addend& addend) {
  if (!addend.u.defined()) return h;
  at::Tensor sum = memory.empty_like(h);
  run_add_norm(h, addend, sum, {}, {}, addend.u.scalar_type());
  return sum;
}

at::Tensor add_norm_backward(Memory& memory, const at::Tensor& dx, const Normed& forward,
                             const Norm& norm, const Addend& addend, at::Tensor dh, bool first) {
  const int64_t d = dh.size(-1), tokens = token_count(dh), chunks = chunk_count(tokens);
  const at::ScalarType type = dx.defined() ? dx.scalar_type() : addend.u.scalar_type();
  const bool scaled = addend.scale.defined();
  const bool plain = type == at::kFloat && !scaled && addend.coefficient == 1.0;
  at::Tensor du;
  if (addend.u.defined() && !plain) du = memory.empty(dh.sizes(), type);
  const at::Tensor scale = full_scale(addend, d);
  const PartialSums gain_grad(memory, chunks, d, norm.gain.defined());
  const PartialSums scale_grad(memory, chunks, d, scaled);
  with_type(type, [&]<typename C>() {
    const auto args = arguments<C>(dx, forward, norm, addend, scale, dh, first, du);
    const auto kernel = kernels::chosen_kernels().stream->of<C>().add_norm_backward;
    for_chunks(tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
      kernels::AddNormBackward<C> own = args;
      own.gain_grad = gain_grad.of(chunk);
      own.scale_grad = scale_grad.of(chunk);
      kernel(own, begin, end);
    });
  });
  if (norm.gain.defined()) gain_grad.add_to(out<float>(norm.gain_grad));
  if (scaled && addend.scale.numel() == d) {
    scale_grad.add_to(out<float>(addend.scale_grad));
  } else if (scaled) {
    float sum = 0.0F;
    for (const float part : scale_grad.total()) sum += part;
    *out<float>(addend.scale_grad) += sum;
  }
  return addend.u.defined() && plain ? dh : du;
}

}  // namespace wavroute::ops
