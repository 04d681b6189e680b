// Stock operators throughout: any device, any type. Backwards run autograd over the forward again,
// from the inputs that a caller keeps.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/backend.h"
#include "ops/heads.h"
#include "ops/ids.h"
#include "ops/zero_rows.h"

namespace wavroute::ops {
namespace {

at::Tensor leaf(const at::Tensor& tensor) { return tensor.detach().set_requires_grad(true); }

// Summed over the tokens: [..., d] -> [d].
at::Tensor token_sum(const at::Tensor& rows) { return rows.flatten(0, -2).sum(0); }

class ComposedBackend final : public Backend {
 public:
  explicit ComposedBackend(at::Device device) : memory_(device) {}

  [[nodiscard]] BackendKind kind() const override { return BackendKind::kComposed; }
  [[nodiscard]] bool serves(const PassNeeds&) const override { return true; }
  [[nodiscard]] RouteOperators* routes() override { return nullptr; }

  [[nodiscard]] Memory& memory() override { return memory_; }
  void begin_pass() override {}

  [[nodiscard]] at::Tensor project(const at::Tensor& x, const at::Tensor& w) override {
    return at::linear(x, w);
  }
  [[nodiscard]] at::Tensor project_logits(const at::Tensor& x, const at::Tensor& w) override {
    if (x.scalar_type() != at::kBFloat16) return project(x, w);
    if (x.is_cuda()) return at::mm(x, w.t(), at::kFloat);  // of CUDA alone
    return at::linear(x.to(at::kFloat), w.to(at::kFloat));
  }
  [[nodiscard]] at::Tensor project_backward(const at::Tensor& du, const at::Tensor& w) override {
    return at::mm(du, w);
  }
  void add_weight_grad(const at::Tensor& du, const at::Tensor& x, at::Tensor grad) override {
    grad.add_(at::mm(du.t(), x));
  }
  void add_bias(at::Tensor rows, const at::Tensor& bias) override { rows.add_(bias); }
  void add_bias_grad(const at::Tensor& du, at::Tensor grad) override {
    grad.add_(du.to(grad.scalar_type()).sum(0));
  }
  [[nodiscard]] at::Tensor batched_product(const at::Tensor& a, const at::Tensor& b) override {
    return at::bmm(a, b);
  }

  [[nodiscard]] Normed add_norm(const at::Tensor& h, const Addend& addend, const Norm& norm,
                                at::ScalarType type) override {
    Normed result;
    result.h = add(h, addend);
    result.x = normed(result.h, norm.gain, norm.eps).to(type);
    return result;
  }

  [[nodiscard]] at::Tensor add(const at::Tensor& h, const Addend& addend) override {
    if (!addend.u.defined()) return h;
    const at::Tensor u = addend.u.to(h.scalar_type());
    if (!addend.scale.defined()) return at::add(h, u, addend.coefficient);
    return at::addcmul(h, u, addend.scale.detach(), addend.coefficient);
  }

  [[nodiscard]] at::Tensor add_norm_backward(const at::Tensor& dx, const Normed& forward,
                                             const Norm& norm, const Addend& addend, at::Tensor dh,
                                             bool first) override {
    if (dx.defined()) {
      const at::Tensor from_x = norm_backward(dx, forward.h, norm);
      if (first) {
        dh.copy_(from_x);
      } else {
        dh.add_(from_x);
      }
    } else if (first) {
      dh.zero_();
    }
    if (!addend.u.defined()) return {};
    const at::Tensor whole = addend.coefficient == 1.0 ? dh : dh * addend.coefficient;
    if (!addend.scale.defined()) return whole.to(addend.u.scalar_type());
    const at::Tensor by_channel = token_sum(whole * addend.u.to(dh.scalar_type()));
    at::Tensor scale_grad = addend.scale_grad;
    scale_grad.add_(addend.scale.numel() == 1 ? by_channel.sum() : by_channel);
    return (whole * addend.scale.detach()).to(addend.u.scalar_type());
  }

  [[nodiscard]] Attended attention(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                                   const RopeTable& rope) override {
    return {causal_attention(qkv, shape, rope), {}};
  }
  [[nodiscard]] at::Tensor attention_backward(const at::Tensor& qkv, const Attended&,
                                              const at::Tensor& dy,
                                              const kernels::AttentionShape& shape,
                                              const RopeTable& rope) override {
    const at::AutoGradMode with_grad(true);
    const at::Tensor input = leaf(qkv);
    return torch::autograd::grad({causal_attention(input, shape, rope)}, {input}, {dy})[0];
  }

  [[nodiscard]] at::Tensor cached_attention(const at::Tensor& qkv,
                                            const kernels::AttentionShape& shape,
                                            const RopeTable& rope,
                                            const KeyValues& cache) override {
    std::vector<at::Tensor> ys;
    for (int64_t b = 0; b < shape.batch; ++b) {
      const int64_t position = cache.positions[static_cast<size_t>(b)];
      kernels::AttentionShape own = shape;
      own.batch = 1;
      ys.push_back(attend_over(split_heads(qkv.narrow(0, b * shape.length, shape.length), own,
                                           {rope.cos.narrow(0, position, shape.length),
                                            rope.sin.narrow(0, position, shape.length)}),
                               cache.keys.narrow(0, b, 1), cache.values.narrow(0, b, 1), position));
    }
    return at::cat(ys).reshape({shape.batch * shape.length, shape.heads * shape.width});
  }
  [[nodiscard]] at::Tensor project(const at::Tensor& x, const Q8Matrix& w) override {
    return project_logits(x, w).to(x.scalar_type());
  }
  [[nodiscard]] at::Tensor project_logits(const at::Tensor& x, const Q8Matrix& w) override {
    return at::linear(rounded_to_blocks(x), dequantised(w));
  }

  [[nodiscard]] at::Tensor swiglu(const at::Tensor& gate_up) override {
    const std::vector<at::Tensor> halves = gate_up.chunk(2, -1);
    return at::silu(halves[0]) * halves[1];
  }
  void swiglu_backward(at::Tensor gate_up, at::Tensor da) override {
    const at::AutoGradMode with_grad(true);
    const at::Tensor input = leaf(gate_up.clone());
    const at::Tensor a = swiglu(input);
    const at::Tensor grad = torch::autograd::grad({a}, {input}, {da.clone()})[0];
    const at::NoGradGuard no_grad;
    gate_up.copy_(grad);
    da.copy_(a.detach());
  }

  [[nodiscard]] at::Tensor embed(const at::Tensor& table, const at::Tensor& ids) override {
    if (ids.is_cpu()) check_ids(ids, table.size(0));
    return at::embedding(table, ids);
  }
  void add_rows(const at::Tensor& ids, const at::Tensor& rows, at::Tensor table_grad) override {
    table_grad.add_(at::embedding_dense_backward(rows, ids, table_grad.size(0),
                                                 /*padding_idx=*/-1,
                                                 /*scale_grad_by_freq=*/false));
  }
  [[nodiscard]] double cross_entropy(at::Tensor logits, const at::Tensor& targets,
                                     double weight) override {
    if (targets.is_cpu()) check_ids(targets, logits.size(1), /*targets=*/true);
    const at::AutoGradMode with_grad(true);
    const at::ScalarType wide = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor input = leaf(logits.to(wide));
    const at::Tensor loss =
        at::cross_entropy_loss(input, targets, {}, at::Reduction::Sum, kUnscored);
    const at::Tensor grad =
        torch::autograd::grad({loss}, {input}, {at::full_like(loss, weight)})[0];
    const at::NoGradGuard no_grad;
    logits.copy_(grad);
    return loss.item<double>();
  }

  [[nodiscard]] double sum_of_squares(const at::Tensor& values) override {
    const double norm = at::linalg_vector_norm(values).item<double>();
    return norm * norm;
  }
  void adamw(const AdamwBuffers& buffers, const AdamwNumbers& numbers) override {
    at::Tensor grad = buffers.grad, copy = buffers.copy;
    if (numbers.grad_scale != 1.0) grad.mul_(numbers.grad_scale);
    const at::Tensor update = at::full({}, static_cast<double>(numbers.update),
                                       buffers.value.options().dtype(at::kFloat));
    at::_fused_adamw_({buffers.value}, {grad}, {buffers.first}, {buffers.second}, {}, {update},
                      numbers.lr, numbers.beta1, numbers.beta2, numbers.weight_decay, numbers.eps,
                      /*amsgrad=*/false, /*maximize=*/false);
    if (copy.defined()) copy.copy_(buffers.value);
    grad.zero_();
  }

 private:
  [[nodiscard]] static at::Tensor normed(const at::Tensor& h, const at::Tensor& gain, double eps) {
    return gain.defined() ? rms_norm(h, gain, eps) : h;
  }
  // What dx sends to h; adds to the gain's gradient.
  [[nodiscard]] static at::Tensor norm_backward(const at::Tensor& dx, const at::Tensor& h,
                                                const Norm& norm) {
    if (!norm.gain.defined()) return dx.to(h.scalar_type());
    const at::AutoGradMode with_grad(true);
    const at::Tensor input = leaf(h), gain = leaf(norm.gain);
    const auto grads = torch::autograd::grad({normed(input, gain, norm.eps).to(dx.scalar_type())},
                                             {input, gain}, {dx});
    const at::NoGradGuard no_grad;
    at::Tensor gain_grad = norm.gain_grad;
    gain_grad.add_(grads[1]);
    return grads[0];
  }

  // One sequence's heads over its cache, to which they are added -> [T, heads, width].
  [[nodiscard]] static at::Tensor attend_over(const Heads& heads, const at::Tensor& keys,
                                              const at::Tensor& values, int64_t position) {
    const int64_t length = heads.q.size(2), count = heads.q.size(1), end = position + length;
    keys.narrow(2, position, length).copy_(heads.k);
    values.narrow(2, position, length).copy_(heads.v);
    std::optional<at::Tensor> mask;
    if (position > 0 && length > 1) {
      mask = at::ones({length, end}, heads.q.options().dtype(at::kBool)).tril(position);
    }
    const at::Tensor y =
        at::scaled_dot_product_attention(heads.q, repeat_heads(keys.narrow(2, 0, end), count),
                                         repeat_heads(values.narrow(2, 0, end), count), mask, 0.0,
                                         /*is_causal=*/position == 0 && length > 1);
    return y.transpose(1, 2)[0];
  }

  SystemMemory memory_;
};

}  // namespace

std::unique_ptr<Backend> make_composed_backend(at::Device device) {
  return std::make_unique<ComposedBackend>(device);
}

}  // namespace wavroute::ops
