#include "ops/norm.h"

#include <ATen/ATen.h>

#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::ops {
namespace {

int64_t token_count(const at::Tensor& h) { return h.size(-1) == 0 ? 0 : h.numel() / h.size(-1); }

// scale in the kernels' form, [d].
at::Tensor full_scale(const Addend& addend, int64_t d) {
  if (!addend.scale.defined()) return {};
  return addend.scale.numel() == d ? addend.scale.detach()
                                   : addend.scale.detach().expand({d}).contiguous();
}

// h_out = h + addend, and its norm if `normed` has tensors for it. u and x are of `type`.
void run_add_norm(const at::Tensor& h, const Addend& addend, const at::Tensor& h_out,
                  const Norm& norm, const Normed& normed, at::ScalarType type) {
  const int64_t d = h.size(-1);
  const at::Tensor scale = full_scale(addend, d);
  with_type(type, [&]<typename C>() {
    kernels::AddNorm<C> args;
    args.d = d;
    args.h = rows_in<float>(h);
    args.u = rows_in<C>(addend.u);
    args.scale = in<float>(scale);
    args.coefficient = static_cast<float>(addend.coefficient);
    args.h_out = rows_out<float>(h_out);
    args.gain = in<float>(norm.gain);
    args.eps = static_cast<float>(norm.eps);
    args.x = rows_out<C>(normed.x);
    args.inverse_rms = out<float>(normed.inverse_rms);
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
    kernels::AddNormBackward<C> args;
    args.d = d;
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
