#include "ops/route_parts.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/typed.h"

namespace wavroute::ops {
namespace {

using kernels::Grid;

// A gradient [tokens, d] and its sign in a sum of gradients.
struct SignedRows {
  Grid<const float> grad;
  float sign = 1.0F;
};

// out = the sum of at least one signed gradient, in C; at most kMostRunning. `out` may be one of
// them.
template <typename C>
void add_rows(std::span<const SignedRows> grads, Grid<C> out, int64_t d, int64_t begin,
              int64_t end) {
  kernels::UpdateGrad<C> args;
  args.d = d;
  args.du = out;
  for (const SignedRows& grad : grads) {
    args.grads[args.sums] = grad.grad;
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
        later(rows_in<float>(grads.later)),
        u(rows_out<C>(grads.u)) {
    for (int64_t f = 0; f < forms; ++f) {
      form[static_cast<size_t>(f)] = rows_out<float>(grads.forms[f]);
    }
    for (size_t k = 0; k < part.size(); ++k) part[k] = rows_out<float>(grads.part[k]);
  }

  int64_t d, forms, written;
  std::array<Grid<float>, kMostRunning> form = {};
  std::array<Grid<float>, kMostParts> part = {};
  Grid<const float> later;
  Grid<C> u;

  void clear(int64_t begin, int64_t end) const {
    for (int64_t f = 0; f < forms; ++f) {
      for (int64_t t = begin; t < end; ++t) std::fill_n(form[static_cast<size_t>(f)][t], d, 0.0F);
    }
  }

  void run(int64_t begin, int64_t end) const {
    for (int64_t k = 0; k < kMostParts; ++k) {
      if (!part[static_cast<size_t>(k)] || k == written) continue;
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
    if (later) grads.push_back({later, 1.0F});
    const std::span<const SignedRows> all = grads;
    add_rows(all, part[static_cast<size_t>(written)], d, begin, end);
    if (u) add_rows(all, u, d, begin, end);
  }
};

float value(float x) { return x; }
float value(kernels::Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// mixed_grad = dh exp(peak - lse); along becomes that of mass, - along exp(peak - lse).
template <typename C>
void through_phase_one(Grid<const C> dh, Grid<float> mixed_grad, float* along, const float* peak,
                       const float* lse, int64_t d, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float weight = std::exp(peak[t] - lse[t]);
    along[t] *= -weight;
    for (int64_t c = 0; c < d; ++c) mixed_grad[t][c] = value(dh[t][c]) * weight;
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
      through_phase_one(rows_in<C>(group.dh), rows_out<float>(mixed.grad), out<float>(group.along),
                        in<float>(mixed.peak), in<float>(group.lse), parts.d, begin, end);
    };
    read_backward(memory, whole,
                  {[&](int64_t begin, int64_t end) { parts.clear(begin, end); }, after});
  });
}

}  // namespace wavroute::ops
