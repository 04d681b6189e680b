#include <ATen/ATen.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "functional/route_read.h"
#include "ops/parallel.h"
#include "ops/typed.h"

namespace wavroute::functional {
namespace {

using ops::in;
using ops::out;

// From the gradients of the forms, [forms, tokens, d], to those of the parts, and the update's
// where it has one of its own: d part_k = sum_f sign_fk d form_f, and what came to the written part
// from later readers. Changes the forms' gradients.
template <typename C>
struct PartGrads {
  int64_t d = 0;
  int64_t forms = 0;
  std::array<float*, kernels::kMostForms> form = {};
  std::array<float*, kernels::kMostParts> part = {};  // by place; null: not wanted
  int64_t written = -1;
  const float* later = nullptr;  // of the written part; null: nothing came
  C* u = nullptr;                // null: not wanted

  void run(int64_t begin, int64_t end) const {
    for (int64_t k = 0; k < kernels::kMostParts; ++k) {
      if (part[static_cast<size_t>(k)] == nullptr || k == written) continue;
      std::array<SignedGrad, kernels::kMostForms> grads;
      for (int64_t f = 0; f < forms; ++f) {
        grads[static_cast<size_t>(f)] = {form[static_cast<size_t>(f)], sign_of(f, k)};
      }
      add_grads(std::span<const SignedGrad>(grads.data(), static_cast<size_t>(forms)),
                part[static_cast<size_t>(k)], d, begin, end);
    }
    if (written >= 0) run_written(begin, end);
  }

  // The last one, so that two forms may be added up in the place of one.
  void run_written(int64_t begin, int64_t end) const {
    std::vector<SignedGrad> grads = {{form[0], 1.0F}};
    if (forms == 2) grads.push_back({form[1], sign_of(1, written)});
    if (forms == 3) {
      const std::array<SignedGrad, 2> details = {
          {{form[1], sign_of(1, written)}, {form[2], sign_of(2, written)}}};
      add_grads(std::span<const SignedGrad>(details), form[1], d, begin, end);
      grads.push_back({form[1], 1.0F});
    }
    if (later != nullptr) grads.push_back({later, 1.0F});
    add_grads(std::span<const SignedGrad>(grads), part[static_cast<size_t>(written)], d, begin,
              end);
    if (u != nullptr) add_grads(std::span<const SignedGrad>(grads), u, d, begin, end);
  }
};

float value(float x) { return x; }
float value(kernels::Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// mixed_grad = dh exp(peak - lse); along becomes that of mass, - along exp(peak - lse).
template <typename C>
void through_phase_one(const C* dh, float* mixed_grad, float* along, const float* peak,
                       const float* lse, int64_t d, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float weight = std::exp(peak[t] - lse[t]);
    along[t] *= -weight;
    for (int64_t i = t * d; i < (t + 1) * d; ++i) mixed_grad[i] = value(dh[i]) * weight;
  }
}

}  // namespace

ReadGrads route_read_backward(const OptionalTensor& part_grad, const at::Tensor& x_grad,
                              const OptionalTensors& parts, int64_t part, at::IntArrayRef forms,
                              const at::Tensor& h_in, const OptionalTensor& inverse_in,
                              const at::Tensor& peak_in, const at::Tensor& lse_in,
                              const at::Tensor& running_in, const at::Tensor& query_in,
                              const at::Tensor& bias_in, const OptionalTensor& gain_in) {
  const at::Tensor dx = x_grad.contiguous(), h = h_in.contiguous(), gain = packed(gain_in);
  const at::Tensor inverse_rms = packed(inverse_in), later = packed(part_grad);
  const at::Tensor peak = peak_in.contiguous(), lse = lse_in.contiguous();
  const at::Tensor running = running_in.contiguous(), query = query_in.contiguous();
  const at::Tensor bias = bias_in.contiguous();
  const PackedParts seen(parts);
  const int64_t tokens = dx.size(0), d = dx.size(1), chunks = ops::chunk_count(tokens);
  const auto sources = static_cast<int64_t>(forms.size());
  const int64_t form_count = kernels::form_count(seen.rows.count);
  const at::TensorOptions options = peak.options();
  const at::Tensor mixed_grad = at::empty({tokens, d}, options),
                   along = at::empty({tokens}, options);
  const bool is_float = dx.scalar_type() == at::kFloat;
  const at::Tensor dh = is_float ? mixed_grad : at::empty_like(dx);
  const at::Tensor form_grads = at::empty({form_count, tokens, d}, options);
  const bool own_u = part >= 0 && dx.scalar_type() != at::kFloat;
  const at::Tensor du = own_u ? at::empty_like(dx) : absent(dh);
  std::vector<at::Tensor> part_grads;
  const ops::PartialSums gain_grad(chunks, d, gain_in.has_value());
  const ops::PartialSums query_grad(chunks, d), bias_grad(chunks, sources);
  ops::with_type(dx.scalar_type(), [&]<typename C>() {
    kernels::ReadBackward<C> args;
    args.d = d;
    args.dx = in<C>(dx);
    args.h = in<C>(h);
    args.inverse_rms = in<float>(inverse_rms);
    args.gain = in<float>(gain);
    args.parts = seen.rows;
    args.running = static_cast<int>(sources);
    args.query = in<float>(query);
    args.lse = in<float>(lse);
    args.dh = out<C>(dh);
    args.along = out<float>(along);
    for (int s = 0; s < args.running; ++s) {
      const auto kept = [&](int64_t row) { return in<float>(running) + kept_row(s, row) * tokens; };
      args.sources[s] = {.form = static_cast<int>(forms[static_cast<size_t>(s)]),
                         .bias = in<float>(bias)[s],
                         .dot = kept(0),
                         .ratio = kept(1),
                         .inverse = kept(2)};
    }
    PartGrads<C> split;
    split.d = d;
    split.forms = form_count;
    for (int64_t f = 0; f < form_count; ++f) {
      args.forms[f].grad = split.form[static_cast<size_t>(f)] =
          out<float>(form_grads) + f * tokens * d;
    }
    for (size_t k = 0; k < seen.held.size(); ++k) {
      if (!seen.held[k].defined()) continue;
      part_grads.push_back(at::empty({tokens, d}, options));
      split.part[k] = out<float>(part_grads.back());
    }
    split.written = part;
    split.later = in<float>(later);
    split.u = own_u ? out<C>(du) : nullptr;
    const auto kernel = kernels::chosen_kernels().running->of<C>().read_backward;
    ops::for_chunks(tokens, [&](int64_t chunk, int64_t begin, int64_t end) {
      kernels::ReadBackward<C> own = args;
      own.gain_grad = gain_grad.of(chunk);
      own.query_grad = query_grad.of(chunk);
      for (int s = 0; s < own.running; ++s) own.sources[s].bias_grad = bias_grad.of(chunk) + s;
      for (int64_t f = 0; f < form_count; ++f) {
        std::memset(own.forms[f].grad + begin * d, 0,
                    static_cast<size_t>((end - begin) * d) * sizeof(float));
      }
      kernel(own, begin, end);
      split.run(begin, end);
      through_phase_one(own.dh, out<float>(mixed_grad), own.along, in<float>(peak), own.lse, d,
                        begin, end);
    });
  });
  return {du,
          part_grads,
          mixed_grad,
          along,
          query_grad.total({d}),
          bias_grad.total({sources}),
          gain_in ? gain_grad.total({d}) : absent(dh)};
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
