#include "ops/cuda/cuda_backend.h"

#include <ATen/ATen.h>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/stream.h"
#include "ops/elementwise_arguments.h"
#include "ops/ids.h"
#include "ops/norm_arguments.h"

namespace wavroute::ops {

namespace cuda = kernels::cuda;

CudaBackend::CudaBackend(std::unique_ptr<Gpu> gpu)
    : gpu_(std::move(gpu)),
      memory_(gpu_->device()),
      composed_(make_composed_backend(gpu_->device())) {}

// ---- products -----------------------------------------------------------------------------------

at::Tensor CudaBackend::project(const at::Tensor& x, const at::Tensor& w) {
  return at::linear(x, w);
}
at::Tensor CudaBackend::project_backward(const at::Tensor& du, const at::Tensor& w) {
  return at::mm(du, w);
}
void CudaBackend::add_weight_grad(const at::Tensor& du, const at::Tensor& x, at::Tensor grad) {
  if (x.scalar_type() == at::kFloat) {
    grad.addmm_(du.t(), x);
  } else {
    gpu_->add_product(std::move(grad), du.t(), x);
  }
}
at::Tensor CudaBackend::batched_product(const at::Tensor& a, const at::Tensor& b) {
  return at::bmm(a, b);
}
at::Tensor CudaBackend::project(const at::Tensor& x, const Q8Matrix& w) {
  return composed_->project(x, w);
}
at::Tensor CudaBackend::project_logits(const at::Tensor& x, const at::Tensor& w) {
  return composed_->project_logits(x, w);
}
at::Tensor CudaBackend::project_logits(const at::Tensor& x, const Q8Matrix& w) {
  return composed_->project_logits(x, w);
}

void CudaBackend::add_bias(at::Tensor rows, const at::Tensor& bias) {
  with_type(rows.scalar_type(), [&]<typename C>() {
    cuda::add_bias<C>(rows_out<C>(rows), rows.size(0), in<float>(bias), rows.size(1), stream());
  });
}
void CudaBackend::add_bias_grad(const at::Tensor& du, at::Tensor grad) {
  const at::Tensor rows = du.contiguous();
  const at::Tensor scratch = floats(cuda::bias_grad_floats(rows.size(0), rows.size(1)));
  with_type(rows.scalar_type(), [&]<typename C>() {
    cuda::add_bias_grad<C>(rows_in<C>(rows), rows.size(0), out<float>(grad), rows.size(1),
                           out<float>(scratch), stream());
  });
}

// ---- the additive stream ------------------------------------------------------------------------

Normed CudaBackend::add_norm(const at::Tensor& stream_rows, const Addend& addend, const Norm& norm,
                             at::ScalarType type) {
  const at::Tensor h = stream_rows.contiguous();
  const bool adds = addend.u.defined(), norms = norm.gain.defined();
  if (!norms && type == at::kFloat && !adds) return {h, h, {}};
  Normed result{adds ? memory_.empty_like(h) : h, memory_.empty(h.sizes(), type), {}};
  if (norms) result.inverse_rms = floats(token_count(h));
  const at::Tensor scale = full_scale(addend, h.size(-1)), kept = adds ? result.h : at::Tensor();
  with_type(type, [&]<typename C>() {
    cuda::add_norm(arguments<C>(h, addend, scale, kept, norm, result), token_count(h), stream());
  });
  return result;
}

at::Tensor CudaBackend::add(const at::Tensor& h, const Addend& addend) {
  if (!addend.u.defined()) return h;
  at::Tensor sum = memory_.empty_like(h);
  const at::Tensor scale = full_scale(addend, h.size(-1));
  with_type(addend.u.scalar_type(), [&]<typename C>() {
    cuda::add_norm(arguments<C>(h, addend, scale, sum, {}, {}), token_count(h), stream());
  });
  return sum;
}

at::Tensor CudaBackend::add_norm_backward(const at::Tensor& given, const Normed& forward,
                                          const Norm& norm, const Addend& addend, at::Tensor dh,
                                          bool first) {
  const at::Tensor dx = given.defined() ? given.contiguous() : given;
  const int64_t d = dh.size(-1), tokens = token_count(dh);
  const at::ScalarType type = dx.defined() ? dx.scalar_type() : addend.u.scalar_type();
  const bool scaled = addend.scale.defined();
  const bool plain = type == at::kFloat && !scaled && addend.coefficient == 1.0;
  at::Tensor du, scale_grad = addend.scale_grad;
  if (addend.u.defined() && !plain) du = memory_.empty(dh.sizes(), type);
  const at::Tensor scale = full_scale(addend, d);
  const bool is_one_scale = scaled && addend.scale.numel() != d;
  if (is_one_scale) scale_grad = floats(d).zero_();
  const at::Tensor scratch = floats(2 * cuda::partial_sums(tokens) * d);
  with_type(type, [&]<typename C>() {
    auto args = arguments<C>(dx, forward, norm, addend, scale, dh, first, du);
    args.gain_grad = norm.gain.defined() ? out<float>(norm.gain_grad) : nullptr;
    args.scale_grad = scaled ? out<float>(scale_grad) : nullptr;
    cuda::add_norm_backward(args, tokens, out<float>(scratch), stream());
  });
  if (is_one_scale) at::Tensor(addend.scale_grad).add_(scale_grad.sum());
  return addend.u.defined() && plain ? dh : du;
}

// ---- SwiGLU -------------------------------------------------------------------------------------

at::Tensor CudaBackend::swiglu(const at::Tensor& gate_up) {
  const int64_t tokens = gate_up.size(0), hidden = gate_up.size(1) / 2;
  at::Tensor a = memory_.empty({tokens, hidden}, gate_up.scalar_type());
  with_type(gate_up.scalar_type(), [&]<typename C>() {
    cuda::swiglu<C>({hidden, rows_in<C>(gate_up), rows_out<C>(a)}, tokens, stream());
  });
  return a;
}
void CudaBackend::swiglu_backward(at::Tensor gate_up, at::Tensor da) {
  with_type(gate_up.scalar_type(), [&]<typename C>() {
    cuda::swiglu_backward<C>({da.size(1), rows_out<C>(gate_up), rows_out<C>(da)}, da.size(0),
                             stream());
  });
}

// ---- the ends of the model ----------------------------------------------------------------------

at::Tensor CudaBackend::embed(const at::Tensor& table, const at::Tensor& ids) {
  if (ids.is_cpu()) check_ids(ids, table.size(0));
  return at::embedding(table, ids);
}

void CudaBackend::add_rows(const at::Tensor& ids, const at::Tensor& rows, at::Tensor table_grad) {
  const int64_t count = ids.numel(), d = table_grad.size(1);
  if (count == 0) return;
  const at::Tensor packed = rows.contiguous();
  const auto [sorted, order] =
      at::sort(ids.flatten(), /*stable=*/std::optional<bool>(true), /*dim=*/0);
  const at::Tensor scratch = floats(cuda::add_rows_floats(count, d));
  cuda::AddRows args;
  args.d = d;
  args.count = count;
  args.ids = in<int64_t>(sorted);
  args.order = in<int64_t>(order);
  args.rows = {in<float>(packed), d};
  args.table = rows_out<float>(table_grad);
  args.scratch = out<float>(scratch);
  cuda::add_rows(args, stream());
}

at::Tensor CudaBackend::token_losses(const at::Tensor& logits, const at::Tensor& targets,
                                     double weight) {
  const at::Tensor packed = targets.contiguous();
  if (packed.is_cpu()) check_ids(packed, logits.size(1), /*targets=*/true);
  at::Tensor loss = floats(logits.size(0));
  with_type(logits.scalar_type(), [&]<typename C>() {
    cuda::cross_entropy(arguments<C>(logits, packed, weight, loss), logits.size(0), stream());
  });
  return loss;
}
double CudaBackend::cross_entropy(at::Tensor logits, const at::Tensor& targets, double weight) {
  return token_losses(logits, targets, weight).sum(at::kDouble).item<double>();
}

}  // namespace wavroute::ops
