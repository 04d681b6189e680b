#include "kernels/cuda/elementwise.h"

#include "kernels/cuda/row.h"

namespace wavroute::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// ---- SwiGLU ----

// The logistic function of g and of -g, their sum being 1. Computed from exp(-|g|), which cannot
// overflow: a large |g| gives exactly 0 and 1.
struct Sigmoid {
  float of_plus, of_minus;
};
WAVROUTE_DEVICE Sigmoid sigmoid(float g) {
  const float decay = exponential(g > 0.0F ? -g : g);
  const float nearer = 1.0F / (1.0F + decay);
  const float farther = decay * nearer;
  return g > 0.0F ? Sigmoid{nearer, farther} : Sigmoid{farther, nearer};
}

// The row and the first column of this thread's pack, of rows that `pieces` blocks share.
struct Place {
  int64_t row, column;
  WAVROUTE_DEVICE Place(int64_t pieces, int n)
      : row(block() / pieces), column((block() % pieces * kThreads + thread()) * n) {}
};
template <typename Args>
void launch_pieces(void (*kernel)(Args, int64_t pieces), bool in_packs, const Args& args,
                   int64_t rows, Stream stream) {
  const int64_t most = kThreads * (in_packs ? 4 : 1);  // columns of a block
  const int64_t pieces = (args.hidden + most - 1) / most;
  launch(kernel, {rows * pieces, kThreads, 0}, stream, args, pieces);
}

template <typename C, int n>
WAVROUTE_KERNEL swiglu_packs(Swiglu<C> s, int64_t pieces) {
  const Place at(pieces, n);
  if (at.column >= s.hidden) return;
  float gate[n], up[n];
  load<n>(s.gate_up[at.row] + at.column, gate);
  load<n>(s.gate_up[at.row] + s.hidden + at.column, up);
  for (int k = 0; k < n; ++k) gate[k] *= sigmoid(gate[k]).of_plus * up[k];
  store<n>(gate, s.a[at.row] + at.column);
}

// silu'(g) = sigmoid(g) (1 + g sigmoid(-g))
template <typename C, int n>
WAVROUTE_KERNEL swiglu_backward_packs(SwigluBackward<C> s, int64_t pieces) {
  const Place at(pieces, n);
  if (at.column >= s.hidden) return;
  C* const gates = s.gate_up[at.row] + at.column;
  C* const ups = gates + s.hidden;
  C* const grads = s.da[at.row] + at.column;
  float gate[n], up[n], grad[n];
  load<n>(gates, gate);
  load<n>(ups, up);
  load<n>(grads, grad);
  for (int k = 0; k < n; ++k) {
    const Sigmoid logistic = sigmoid(gate[k]);
    const float silu = gate[k] * logistic.of_plus;
    const float slope = fused(silu, logistic.of_minus, logistic.of_plus);
    gate[k] = grad[k] * up[k] * slope;
    const float a = silu * up[k];
    up[k] = grad[k] * silu;
    grad[k] = a;
  }
  store<n>(gate, gates);
  store<n>(up, ups);
  store<n>(grad, grads);
}

// ---- cross-entropy ----

constexpr int kRowThreads = 512;  // of a row of logits

// max, and sum of exp(logit - max), over the logits seen so far.
struct LogSumExp {
  float max = -3.402823466e38F;  // not -inf: logits of -inf alone add 0, not NaN
  float sum = 0.0F;
  // A NaN is ignored by the maximum and makes the sum NaN.
  template <int n>
  WAVROUTE_DEVICE void add(const float (&x)[n]) {
    float peak = max;
    for (int k = 0; k < n; ++k) peak = x[k] > peak ? x[k] : peak;
    sum *= exponential(max - peak);
    for (int k = 0; k < n; ++k) sum += exponential(x[k] - peak);
    max = peak;
  }
  WAVROUTE_DEVICE void join(const LogSumExp& other) {  // the same bits whichever is `other`
    const float peak = other.max > max ? other.max : max;
    sum = sum * exponential(max - peak) + other.sum * exponential(other.max - peak);
    max = peak;
  }
};

// Of all threads of the block, in each of them.
WAVROUTE_DEVICE LogSumExp joined(LogSumExp own) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    LogSumExp other;
    other.max = from_lane(own.max, mask);
    other.sum = from_lane(own.sum, mask);
    own.join(other);
  }
  auto* const all = shared<LogSumExp>();
  if (thread() % kWarp == 0) all[thread() / kWarp] = own;
  barrier();
  own = all[0];
  for (int w = 1; w < kRowThreads / kWarp; ++w) own.join(all[w]);
  return own;
}

// A block takes a row.
template <typename C, int n>
WAVROUTE_KERNEL cross_entropy_rows(CrossEntropy<C> c) {
  constexpr int kStep = kRowThreads * n;
  const int64_t row = block(), first = int64_t{thread()} * n, target = c.targets[row];
  C* const logits = c.logits[row];
  float x[n];
  if (target == c.unscored) {
    if (thread() == 0) c.loss[row] = 0.0F;
    for (int k = 0; k < n; ++k) x[k] = 0.0F;
    for (int64_t i = first; i < c.vocabulary && c.want_grad; i += kStep) store<n>(x, logits + i);
    return;
  }
  LogSumExp own;
  for (int64_t i = first; i < c.vocabulary; i += kStep) {
    load<n>(logits + i, x);
    own.template add<n>(x);
  }
  const float relative_to = to_float(logits[target]);
  const LogSumExp all = joined(own);  // whose barrier keeps the target's logit until it is read
  const float relative = relative_to - all.max;
  if (thread() == 0) c.loss[row] = logarithm(all.sum) - relative;
  if (!c.want_grad) return;
  const float factor = c.weight / all.sum;
  for (int64_t i = first; i < c.vocabulary; i += kStep) {
    load<n>(logits + i, x);
    for (int k = 0; k < n; ++k) {
      x[k] = i + k == target ? c.weight * (exponential(relative) / all.sum - 1.0F)
                             : exponential(x[k] - all.max) * factor;
    }
    store<n>(x, logits + i);
  }
}

// ---- flat buffers ----

// Calls f(i) for every element below `count`.
template <typename F>
WAVROUTE_DEVICE void for_elements(int64_t count, const F& f) {
  const int64_t i = block() * kThreads + thread();
  if (i < count) f(i);
}
Shape elements(int64_t count) { return {(count + kThreads - 1) / kThreads, kThreads, 0}; }

WAVROUTE_KERNEL adamw_elements(AdamwStep s, const AdamwScalars* scalars, int64_t count) {
  const AdamwScalars now = *scalars;
  if (now.is_finite == 0) return;
  for_elements(count, [&](int64_t i) {
    const float g = s.grad[i] * now.grad_scale;
    const float first = fused(s.beta1, s.first[i], (1.0F - s.beta1) * g);
    const float second = fused(s.beta2, s.second[i], (1.0F - s.beta2) * g * g);
    const float scale = now.lr / now.correction1;
    const float step = first * scale / (root(second / now.correction2) + s.eps);
    const float value = s.value[i] * (1.0F - now.lr * s.weight_decay) - step;
    s.value[i] = value;
    s.grad[i] = 0.0F;
    s.first[i] = first;
    s.second[i] = second;
    if (s.copy != nullptr) put(value, s.copy[i]);
  });
}

WAVROUTE_KERNEL add_bf16_elements(const Bf16* from, float* to, int64_t count) {
  for_elements(count, [&](int64_t i) { to[i] += to_float(from[i]); });
}

// The sum over the block in thread 0.
WAVROUTE_DEVICE double block_sum(double x) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x += from_lane(x, mask);
  auto* const sums = shared<double>();
  if (thread() % kWarp == 0) sums[thread() / kWarp] = x;
  barrier();
  if (thread() != 0) return x;
  x = sums[0];
  for (int w = 1; w < kThreads / kWarp; ++w) x += sums[w];
  return x;
}

constexpr int64_t kMostSquareParts = 1024;
WAVROUTE_KERNEL square_sums(const float* x, int64_t count, double* parts) {
  double sum = 0.0;
  for (int64_t i = block() * kThreads + thread(); i < count; i += blocks() * kThreads) {
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);  // exact but for the addition
  }
  sum = block_sum(sum);
  if (thread() == 0) parts[block()] = sum;
}
WAVROUTE_KERNEL sum_parts(const double* parts, int64_t count, double* sum) {
  double own = 0.0;
  for (int64_t i = thread(); i < count; i += kThreads) own += parts[i];
  own = block_sum(own);
  if (thread() == 0) *sum = own;
}
constexpr size_t kSumBytes = sizeof(double) * kThreads / kWarp;

}  // namespace

template <typename C>
void swiglu(const Swiglu<C>& s, int64_t rows, Stream stream) {
  const bool in_packs = s.hidden % 4 == 0 && takes_packs(s.gate_up) && takes_packs(s.a);
  launch_pieces(in_packs ? swiglu_packs<C, 4> : swiglu_packs<C, 1>, in_packs, s, rows, stream);
}

template <typename C>
void swiglu_backward(const SwigluBackward<C>& s, int64_t rows, Stream stream) {
  const bool in_packs = s.hidden % 4 == 0 && takes_packs(s.gate_up) && takes_packs(s.da);
  launch_pieces(in_packs ? swiglu_backward_packs<C, 4> : swiglu_backward_packs<C, 1>, in_packs, s,
                rows, stream);
}

template <typename C>
void cross_entropy(const CrossEntropy<C>& c, int64_t rows, Stream stream) {
  const Shape shape{rows, kRowThreads, sizeof(LogSumExp) * kRowThreads / kWarp};
  if (c.vocabulary % 4 == 0 && takes_packs(c.logits)) {
    launch(cross_entropy_rows<C, 4>, shape, stream, c);
  } else {
    launch(cross_entropy_rows<C, 1>, shape, stream, c);
  }
}

void adamw(const AdamwStep& s, const AdamwScalars* scalars, int64_t count, Stream stream) {
  launch(adamw_elements, elements(count), stream, s, scalars, count);
}

int64_t square_parts(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return blocks < kMostSquareParts ? blocks : kMostSquareParts;
}
void sum_of_squares(const float* x, int64_t count, double* scratch, double* sum, Stream stream) {
  const int64_t parts = square_parts(count);
  launch(square_sums, {parts, kThreads, kSumBytes}, stream, x, count, scratch);
  launch(sum_parts, {1, kThreads, kSumBytes}, stream, static_cast<const double*>(scratch), parts,
         sum);
}

void add_bf16(const Bf16* from, float* to, int64_t count, Stream stream) {
  launch(add_bf16_elements, elements(count), stream, from, to, count);
}

template void swiglu(const Swiglu<float>&, int64_t, Stream);
template void swiglu(const Swiglu<Bf16>&, int64_t, Stream);
template void swiglu_backward(const SwigluBackward<float>&, int64_t, Stream);
template void swiglu_backward(const SwigluBackward<Bf16>&, int64_t, Stream);
template void cross_entropy(const CrossEntropy<float>&, int64_t, Stream);
template void cross_entropy(const CrossEntropy<Bf16>&, int64_t, Stream);

}  // namespace wavroute::kernels::cuda
