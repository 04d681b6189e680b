#include "kernels/elementwise.h"

#include "kernels/kernels.h"
#include "kernels/sweep.h"

namespace wavroute::kernels::WAVROUTE_ISA {
namespace {

// ---- SwiGLU ----

// The logistic function of g and of -g, their sum being 1. Computed from exp(-|g|), which cannot
// overflow: a large |g| gives exactly 0 and 1.
struct Sigmoid {
  Vec of_plus, of_minus;
};
Sigmoid sigmoid(Vec g) {
  const Vec decay = exp(reinterpret_cast<Vec>(reinterpret_cast<UintVec>(g) | 0x80000000U));
  const Vec nearer = reciprocal(1.0F + decay);
  const Vec farther = decay * nearer;
  const IntVec positive = g > 0.0F;
  return {positive ? nearer : farther, positive ? farther : nearer};
}

template <typename C>
void swiglu(const Swiglu<C>& s, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const C* gate = s.gate_up[row];
    const C* up = gate + s.hidden;
    C* a = s.a[row];
    sweep(s.hidden, [&](int64_t i, auto lanes) {
      const Vec g = lanes.load(gate + i);
      lanes.store(a + i, g * sigmoid(g).of_plus * lanes.load(up + i));
    });
  }
}

// silu'(g) = sigmoid(g) (1 + g sigmoid(-g))
template <typename C>
void swiglu_backward(const SwigluBackward<C>& s, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    C* gate = s.gate_up[row];
    C* up = gate + s.hidden;
    C* da = s.da[row];
    sweep(s.hidden, [&](int64_t i, auto lanes) {
      const Vec g = lanes.load(gate + i);
      const Vec u = lanes.load(up + i);
      const Vec grad = lanes.load(da + i);
      const Sigmoid logistic = sigmoid(g);
      const Vec silu = g * logistic.of_plus;
      const Vec slope = fma(silu, logistic.of_minus, logistic.of_plus);
      lanes.store(gate + i, grad * u * slope);
      lanes.store(up + i, grad * silu);
      lanes.store(da + i, silu * u);
    });
  }
}

// ---- cross-entropy ----

float exp_of(float x) { return exp(broadcast(x))[0]; }

// The second pass over a chunk finds it in the L1 cache, so that a row is read from memory once.
constexpr int64_t kChunk = 4096;

// Independent accumulators, to hide an addition's latency.
constexpr int kChains = 4;

// Calls body(i, chain, lanes) for the vectors of columns [begin, end), cycling through the chains.
template <typename Body>
void sweep_chains(int64_t begin, int64_t end, Body body) {
  int64_t i = begin;
  for (; i + kChains * kLanes <= end; i += kChains * kLanes) {
    for (int chain = 0; chain < kChains; ++chain) body(i + chain * kLanes, chain, WholeVector{});
  }
  sweep(i, end, [&](int64_t column, auto lanes) { body(column, 0, lanes); });
}
Vec combine(const Vec (&chains)[kChains]) {
  return (chains[0] + chains[1]) + (chains[2] + chains[3]);
}

// max, and sum of exp(logit - max), over the logits seen so far.
struct LogSumExp {
  float max = -__FLT_MAX__;  // not -inf: a chunk of only -inf adds 0, not NaN
  float sum = 0.0F;
};

// A NaN is ignored by the maximum and makes the sum NaN.
template <typename C>
LogSumExp with_chunk(LogSumExp seen, const C* logits, int64_t begin, int64_t end) {
  Vec peaks[kChains];
  for (Vec& peak : peaks) peak = broadcast(seen.max);
  sweep_chains(begin, end, [&](int64_t i, int chain, auto lanes) {
    peaks[chain] = max(lanes.load(logits + i, seen.max), peaks[chain]);
  });
  const float peak = largest(max(max(peaks[0], peaks[1]), max(peaks[2], peaks[3])));
  Vec sums[kChains] = {};
  sweep_chains(begin, end, [&](int64_t i, int chain, auto lanes) {
    sums[chain] += exp(lanes.load(logits + i, -__builtin_inff()) - peak);
  });
  return {peak, seen.sum * exp_of(seen.max - peak) + sum(combine(sums))};
}

template <typename C>
void cross_entropy_row(const CrossEntropy<C>& c, int64_t row) {
  C* logits = c.logits[row];
  LogSumExp all;
  for (int64_t begin = 0; begin < c.vocabulary; begin += kChunk) {
    const int64_t end = begin + kChunk < c.vocabulary ? begin + kChunk : c.vocabulary;
    all = with_chunk(all, logits, begin, end);
  }
  C* target = logits + c.targets[row];
  const float relative = load_part(target, 1)[0] - all.max;
  c.loss[row] = __builtin_logf(all.sum) - relative;
  if (!c.want_grad) return;
  const Vec factor = broadcast(c.weight / all.sum);
  sweep(c.vocabulary, [&](int64_t i, auto lanes) {
    lanes.store(logits + i, exp(lanes.load(logits + i) - all.max) * factor);
  });
  store_part(target, broadcast(c.weight * (exp_of(relative) / all.sum - 1.0F)), 1);
}

template <typename C>
void cross_entropy(const CrossEntropy<C>& c, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    if (c.targets[row] != c.unscored) {
      cross_entropy_row(c, row);
      continue;
    }
    c.loss[row] = 0.0F;
    if (!c.want_grad) continue;
    C* logits = c.logits[row];
    sweep(c.vocabulary, [&](int64_t i, auto lanes) { lanes.store(logits + i, zero()); });
  }
}

// ---- flat buffers ----

template <bool has_copy>
void adamw_range(const AdamwStep& s, int64_t begin, int64_t end) {
  const float decay = 1.0F - s.lr * s.weight_decay;
  const float rate = s.lr / s.correction1;
  const Vec beta1 = broadcast(s.beta1), rest1 = broadcast(1.0F - s.beta1);
  const Vec beta2 = broadcast(s.beta2), rest2 = broadcast(1.0F - s.beta2);
  const float inverse2 = 1.0F / s.correction2;
  sweep(begin, end, [&](int64_t i, auto lanes) {
    const Vec g = lanes.load(s.grad + i) * s.grad_scale;
    const Vec first = fma(beta1, lanes.load(s.first + i), rest1 * g);
    const Vec second = fma(beta2, lanes.load(s.second + i), rest2 * g * g);
    const Vec step = first * rate / (sqrt(second * inverse2) + s.eps);
    const Vec value = lanes.load(s.value + i) * decay - step;
    lanes.store(s.value + i, value);
    lanes.store(s.grad + i, zero());
    lanes.store(s.first + i, first);
    lanes.store(s.second + i, second);
    if constexpr (has_copy) lanes.store(s.copy + i, value);
  });
}

void adamw(const AdamwStep& s, int64_t begin, int64_t end) {
  specialize(s.copy != nullptr,
             [&](auto copy) { adamw_range<decltype(copy)::value>(s, begin, end); });
}

using HalfOfFloats = float __attribute__((vector_size(kLanes * 2)));
using DoubleVec = double __attribute__((vector_size(kLanes * 4)));
constexpr int kDoubleLanes = kLanes / 2;

// One step of sum_of_squares.
constexpr int64_t kSquares = kChains * kDoubleLanes;
void add_squares(const float* x, DoubleVec (&sums)[kChains]) {
  for (int chain = 0; chain < kChains; ++chain) {
    HalfOfFloats half;
    std::memcpy(&half, x + chain * kDoubleLanes, sizeof half);
    const DoubleVec wide = __builtin_convertvector(half, DoubleVec);
    sums[chain] += wide * wide;  // exact, except for the addition
  }
}

double sum_of_squares(const float* x, int64_t begin, int64_t end) {
  DoubleVec sums[kChains] = {};
  int64_t i = begin;
  for (; i + kSquares <= end; i += kSquares) add_squares(x + i, sums);
  float rest[kSquares] = {};
  for (int64_t j = 0; i + j < end; ++j) rest[j] = x[i + j];
  add_squares(rest, sums);
  const DoubleVec lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double total = 0.0;
  for (int lane = 0; lane < kDoubleLanes; ++lane) total += lanes[lane];
  return total;
}

void add_bf16(const Bf16* from, float* to, int64_t begin, int64_t end) {
  sweep(begin, end, [&](int64_t i, auto lanes) {
    lanes.store(to + i, lanes.load(to + i) + lanes.load(from + i));
  });
}

template <typename C>
constexpr ActivationKernels<C> activation_table() {
  return {swiglu<C>, swiglu_backward<C>, cross_entropy<C>};
}

}  // namespace

extern const ByType<ActivationKernels> activation_kernels;
const ByType<ActivationKernels> activation_kernels = {activation_table<float>(),
                                                      activation_table<Bf16>()};

extern const FlatKernels flat_kernels;
const FlatKernels flat_kernels = {adamw, sum_of_squares, add_bf16};

}  // namespace wavroute::kernels::WAVROUTE_ISA
