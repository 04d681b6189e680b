#include "ops/route_parts.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "ops/typed.h"

namespace wavroute::ops {
namespace {

// A gradient [tokens, d] and its sign in a sum of gradients.
struct SignedRows {
  const float* grad = nullptr;
  float sign = 1.0F;
};

// out = the sum of at least one signed gradient, in C; at most kMostRunning. `out` may be one of
// them.
template <typename C>
void add_rows(std::span<const SignedRows> grads, C* out, int64_t d, int64_t begin, int64_t end) {
  kernels::UpdateGrad<C> args;
  args.d = d;
  args.du = out;
  for (const SignedRows& grad : grads) {
    args.grad[args.sums] = grad.grad;
    args.sign[args.sums++] = grad.sign;
  }
  kernels::chosen_kernels().running->of<C>().update_grad(args, begin, end);
}

// From the gradients of the forms to those of the parts. Changes the forms' gradients.
template <typename C>
struct Split {
  explicit Split(const PartGrads& grads)
      : d(grads.forms.size(2)),
        forms(grads.forms.size(0)),
        written(grads.written),
        later(in<float>(grads.later)),
        u(out<C>(grads.u)) {
    for (int64_t f = 0; f < forms; ++f) {
      form[static_cast<size_t>(f)] = out<float>(grads.forms) + f * grads.forms.stride(0);
    }
    for (size_t k = 0; k < part.size(); ++k) part[k] = out<float>(grads.part[k]);
  }

  int64_t d, forms, written;
  std::array<float*, kMostRunning> form = {};
  std::array<float*, kMostParts> part = {};
  const float* later;
  C* u;

  void clear(int64_t begin, int64_t end) const {
    for (int64_t f = 0; f < forms; ++f) {
      std::memset(form[static_cast<size_t>(f)] + begin * d, 0,
                  static_cast<size_t>((end - begin) * d) * sizeof(float));
    }
  }

  void run(int64_t begin, int64_t end) const {
    for (int64_t k = 0; k < kMostParts; ++k) {
      if (part[static_cast<size_t>(k)] == nullptr || k == written) continue;
      std::array<SignedRows, kMostRunning> grads;
      for (int64_t f = 0; f < forms; ++f) {
        grads[static_cast<size_t>(f)] = {form[static_cast<size_t>(f)], sign_of(f, k)};
      }
      add_rows(std::span<const SignedRows>(grads.data(), static_cast<size_t>(forms)),
               part[static_cast<size_t>(k)], d, begin, end);
    }
    if (written >= 0) run_written(begin, end);
  }

  // The last one, so that two forms may be added up in the place of one.
  void run_written(int64_t begin, int64_t end) const {
    std::vector<SignedRows> grads = {{form[0], 1.0F}};
    if (forms == 2) grads.push_back({form[1], sign_of(1, written)});
    if (forms == 3) {
      const std::array<SignedRows, 2> details = {
          {{form[1], sign_of(1, written)}, {form[2], sign_of(2, written)}}};
      add_rows(std::span<const SignedRows>(details), form[1], d, begin, end);
      grads.push_back({form[1], 1.0F});
    }
    if (later != nullptr) grads.push_back({later, 1.0F});
    const std::span<const SignedRows> all = grads;
    add_rows(all, part[static_cast<size_t>(written)], d, begin, end);
    if (u != nullptr) add_rows(all, u, d, begin, end);
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

void read_backward_to_parts(const RunningReadBackward& read, const PartGrads& split,
                            const MixedGrad& mixed) {
  RunningReadBackward whole = read;
  for (int64_t f = 0; f < split.forms.size(0); ++f) {
    whole.forms[static_cast<size_t>(f)].grad = split.forms[f];
  }
  SystemMemory memory;
  with_type(read.dx.scalar_type(), [&]<typename C>() {
    const Split<C> parts(split);
    const RouterGroup& group = *read.group;
    const auto after = [&](int64_t begin, int64_t end) {
      parts.run(begin, end);
      through_phase_one(in<C>(group.dh), out<float>(mixed.grad), out<float>(group.along),
                        in<float>(mixed.peak), in<float>(group.lse), parts.d, begin, end);
    };
    read_backward(memory, whole,
                  {[&](int64_t begin, int64_t end) { parts.clear(begin, end); }, after});
  });
}

}  // namespace wavroute::ops
