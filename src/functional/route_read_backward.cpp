#include <ATen/ATen.h>

#include "functional/route_read.h"
#include "ops/route_parts.h"

namespace wavroute::functional {

ops::RouterGroup group_of_one(const at::Tensor& query, const at::Tensor& bias) {
  ops::RouterGroup group;
  group.routers.query = query.contiguous().unsqueeze(0);
  group.routers.running_bias = bias.contiguous().unsqueeze(0);
  return group;
}

ReadGrads route_read_backward(const OptionalTensor& part_grad, const at::Tensor& x_grad,
                              const OptionalTensors& parts, int64_t part, at::IntArrayRef forms,
                              const at::Tensor& h, const OptionalTensor& inverse_rms,
                              const at::Tensor& peak, const at::Tensor& lse,
                              const at::Tensor& running, const at::Tensor& query,
                              const at::Tensor& bias, const OptionalTensor& gain) {
  const at::Tensor dx = x_grad.contiguous();
  const int64_t tokens = dx.size(0), d = dx.size(1);
  const at::TensorOptions options = peak.options();
  const auto zeros = [&](int64_t size) { return at::zeros({size}, options); };
  const bool is_float = dx.scalar_type() == at::kFloat;

  const at::Tensor mixed_grad = at::empty({tokens, d}, options);
  const at::Tensor along = at::empty({tokens}, options);
  ops::RouterGroup group = group_of_one(query, bias);
  group.lse = lse.contiguous().unsqueeze(0);
  group.running = running.contiguous().flatten(0, 1);
  group.dh = (is_float ? mixed_grad : at::empty_like(dx)).unsqueeze(0);
  group.along = along.unsqueeze(0);

  ops::RunningReadBackward read;
  read.group = &group;
  read.parts = packed_parts(parts);
  read.sources = forms_from(forms);
  read.dx = dx;
  read.h = h.contiguous();
  read.inverse_rms = packed(inverse_rms);
  read.gain = packed(gain);
  read.gain_grad = gain ? zeros(d) : at::Tensor();
  read.query_grad = zeros(d);
  read.bias_grad = zeros(read.sources.count);

  ops::PartGrads split;
  split.forms = at::empty({ops::form_count(read.parts.count), tokens, d}, options);
  std::vector<at::Tensor> part_grads;
  for (size_t k = 0; k < parts.size(); ++k) {
    if (!read.parts.row[k].defined()) continue;
    part_grads.push_back(at::empty({tokens, d}, options));
    split.part[k] = part_grads.back();
  }
  split.written = part;
  split.later = packed(part_grad);
  if (part >= 0 && !is_float) split.u = at::empty_like(dx);
  ops::read_backward_to_parts(read, split, {peak.contiguous(), mixed_grad});
  return {split.u.defined() ? split.u : absent(dx),
          part_grads,
          mixed_grad,
          along,
          read.query_grad,
          read.bias_grad,
          gain ? read.gain_grad : absent(dx)};
}

ReadGrads route_read_backward_meta(const OptionalTensor&, const at::Tensor& x_grad,
                                   const OptionalTensors& parts, int64_t part, at::IntArrayRef,
                                   const at::Tensor& h, const OptionalTensor&,
                                   const at::Tensor& peak, const at::Tensor&, const at::Tensor&,
                                   const at::Tensor& query, const at::Tensor& bias,
                                   const OptionalTensor& gain) {
  const auto like = [&](const at::Tensor& t, at::ScalarType type) {
    return at::empty_symint(t.sym_sizes(), t.options().dtype(type));
  };
  const bool own = part >= 0 && x_grad.scalar_type() != at::kFloat;
  std::vector<at::Tensor> part_grads;
  for (const at::Tensor& there : PresentParts(parts).parts) {
    part_grads.push_back(like(there, at::kFloat));
  }
  return {own ? like(h, x_grad.scalar_type()) : absent(h),
          part_grads,
          like(h, at::kFloat),
          like(peak, at::kFloat),
          like(query, at::kFloat),
          like(bias, at::kFloat),
          gain ? like(*gain, at::kFloat) : absent(h)};
}

}  // namespace wavroute::functional
