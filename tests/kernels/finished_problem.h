// Routers over finished sources by the equations of docs/method.md, in double, and the arrays that
// the kernels see of them: what tests of the forward and of the backward share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels::finished {

// Rows are rounded to R before both sides read them and all arithmetic is in float, so that Bf16
// has the tolerance of float: some tens of roundings of 6e-8, relative to the largest element.
inline constexpr double kTolerance = 1e-5;
// Where mixtures are stored as Bf16, once for every 32 sources.
template <typename M>
inline constexpr double kMixedTolerance = std::is_same_v<M, float> ? kTolerance : 1e-2;
inline constexpr double kNormEps = 0.3;  // large enough for its part in the gradient to be seen

struct Shape {
  int64_t d, tokens, sources, routers;
};
inline constexpr Shape kShapes[] = {
    {1, 1, 1, 1},     {2, 3, 2, 3},     {37, 9, 3, 2},   {64, 17, 19, 16}, {333, 5, 40, 1},
    {256, 10, 7, 15}, {512, 3, 33, 17}, {1024, 2, 2, 5}, {16, 12, 70, 33},
};

using Doubles = std::vector<double>;

// Routers over finished sources and one more source that stands for the running sums, in double.
struct Reference {
  Shape shape;
  std::vector<Doubles> rows;   // [sources][tokens, d]
  std::vector<Doubles> ratio;  // [sources][tokens], never differentiated
  Doubles query, bias;         // [routers, d], [routers, sources]
  Doubles more_logit;          // [routers, tokens]
  Doubles more_value;          // [routers, tokens, d]

  [[nodiscard]] double source(int64_t j, int64_t t, int64_t c) const {
    return ratio[j][t] * rows[j][t * shape.d + c];
  }
  [[nodiscard]] double inverse(int64_t j, int64_t t) const {
    double squares = 0;
    for (int64_t c = 0; c < shape.d; ++c) squares += source(j, t, c) * source(j, t, c);
    return 1 / std::sqrt(squares / static_cast<double>(shape.d) + kNormEps);
  }
  [[nodiscard]] double logit(int64_t i, int64_t j, int64_t t) const {
    double dot = 0;
    for (int64_t c = 0; c < shape.d; ++c) dot += query[i * shape.d + c] * source(j, t, c);
    return dot * inverse(j, t) + bias[i * shape.sources + j];
  }
  // softmax over the finished sources and then the one more
  [[nodiscard]] Doubles shares(int64_t i, int64_t t, double* lse) const {
    Doubles result;
    for (int64_t j = 0; j < shape.sources; ++j) result.push_back(logit(i, j, t));
    result.push_back(more_logit[i * shape.tokens + t]);
    const double peak = *std::max_element(result.begin(), result.end());
    double total = 0;
    for (const double x : result) total += std::exp(x - peak);
    *lse = peak + std::log(total);
    for (double& x : result) x = std::exp(x - *lse);
    return result;
  }
  [[nodiscard]] Doubles read(int64_t i, int64_t t, double* lse) const {
    const Doubles a = shares(i, t, lse);
    Doubles h(shape.d);
    for (int64_t c = 0; c < shape.d; ++c) {
      for (int64_t j = 0; j < shape.sources; ++j) h[c] += a[j] * source(j, t, c);
      h[c] += a.back() * more_value[(i * shape.tokens + t) * shape.d + c];
    }
    return h;
  }
  // sum of dh . h over routers and tokens, whose gradients the kernel gives
  [[nodiscard]] double loss(const Doubles& dh) const {
    double total = 0, lse = 0;
    for (int64_t i = 0; i < shape.routers; ++i) {
      for (int64_t t = 0; t < shape.tokens; ++t) {
        const Doubles h = read(i, t, &lse);
        total += std::inner_product(h.begin(), h.end(),
                                    dh.begin() + (i * shape.tokens + t) * shape.d, 0.0);
      }
    }
    return total;
  }
};

// The inputs of a problem as the kernels see them and the room for what they give.
template <typename R, typename M>
struct Problem {
  Shape shape;
  std::vector<std::vector<R>> rows;
  std::vector<std::vector<float>> ratio, inverse, grads;
  std::vector<M> mixed, dh;
  std::vector<float> query, bias, logits, peak, mass;
  std::vector<float> more_logit, more_value, lse, along, query_grad, bias_grad;
  std::unique_ptr<bool[]> first;
  std::vector<Grid<const R>> row_list;
  std::vector<const float*> ratio_list, inverse_list;
  std::vector<Grid<float>> grad_list;

  explicit Problem(const Shape& s) : shape(s) {
    const int64_t pairs = s.routers * s.tokens;
    first = std::make_unique<bool[]>(s.sources);
    for (int64_t j = 0; j < s.sources; ++j) {
      rows.push_back(
          random_values<R>(s.tokens * s.d, 100 + j, 1 + 0.1 * static_cast<double>(j % 5)));
      ratio.push_back(random_values(s.tokens, 200 + j, 0.5));
      for (float& x : ratio.back()) x += 1;
      grads.push_back(random_values(s.tokens * s.d, 300 + j));
      first[j] = j % 3 == 1;
    }
    query = random_values(s.routers * s.d, 1, 3 / std::sqrt(static_cast<double>(s.d)));
    bias = random_values(s.routers * s.sources, 2, 2);
    more_logit = random_values(pairs, 3, 2);
    more_value = random_values(pairs * s.d, 4);
    dh = random_values<M>(pairs * s.d, 5);
    logits.assign(pairs * s.sources, -77);
    peak.assign(pairs, -77);
    mass.assign(pairs, -77);
    mixed.assign(pairs * s.d, stored<M>(-77));
    query_grad = random_values(s.routers * s.d, 6);
    bias_grad = random_values(s.routers * s.sources, 7);
    finish();
  }

  // What depends on the inputs, anew: the inverses, and the merge with the one more source.
  void finish() {
    const Reference r = reference();
    inverse.clear();
    for (int64_t j = 0; j < shape.sources; ++j) {
      inverse.emplace_back();
      for (int64_t t = 0; t < shape.tokens; ++t) {
        inverse[j].push_back(static_cast<float>(r.inverse(j, t)));
      }
    }
    lse.clear();
    along.clear();
    for (int64_t i = 0; i < shape.routers; ++i) {
      for (int64_t t = 0; t < shape.tokens; ++t) {
        double total = 0;
        const Doubles h = r.read(i, t, &total);
        lse.push_back(static_cast<float>(total));
        double product = 0;
        for (int64_t c = 0; c < shape.d; ++c) {
          product += h[c] * to_double(dh[(i * shape.tokens + t) * shape.d + c]);
        }
        along.push_back(static_cast<float>(product));
      }
    }
    row_list.clear(), ratio_list.clear(), inverse_list.clear(), grad_list.clear();
    for (int64_t j = 0; j < shape.sources; ++j) {
      row_list.push_back({rows[j].data(), shape.d});
      ratio_list.push_back(ratio[j].data());
      inverse_list.push_back(inverse[j].data());
      grad_list.push_back({grads[j].data(), shape.d});
    }
  }

  [[nodiscard]] Reference reference() const {
    Reference r{shape,
                {},
                {},
                to_double(query),
                to_double(bias),
                to_double(more_logit),
                to_double(more_value)};
    for (const auto& row : rows) r.rows.push_back(to_double(row));
    for (const auto& x : ratio) r.ratio.push_back(to_double(x));
    return r;
  }

  [[nodiscard]] MixFinished<R, M> forward() {
    return {.d = shape.d,
            .sources = shape.sources,
            .routers = shape.routers,
            .rows = row_list.data(),
            .ratio = ratio_list.data(),
            .inverse = inverse_list.data(),
            .query = {query.data(), shape.d},
            .bias = {bias.data(), shape.sources},
            .logits = {logits.data(), shape.sources * shape.tokens, shape.tokens},
            .peak = {peak.data(), shape.tokens},
            .mass = {mass.data(), shape.tokens},
            .mixed = {mixed.data(), shape.tokens * shape.d, shape.d}};
  }
  [[nodiscard]] MixFinishedBackward<R, M> backward() {
    return {.d = shape.d,
            .sources = shape.sources,
            .routers = shape.routers,
            .rows = row_list.data(),
            .ratio = ratio_list.data(),
            .inverse = inverse_list.data(),
            .query = {query.data(), shape.d},
            .bias = {bias.data(), shape.sources},
            .logits = {logits.data(), shape.sources * shape.tokens, shape.tokens},
            .lse = {lse.data(), shape.tokens},
            .along = {along.data(), shape.tokens},
            .dh = {dh.data(), shape.tokens * shape.d, shape.d},
            .grads = grad_list.data(),
            .first = first.get(),
            .query_grad = {query_grad.data(), shape.d},
            .bias_grad = {bias_grad.data(), shape.sources}};
  }

  void run_both(const MixKernels<R, M>& kernels) {
    kernels.forward(forward(), 0, shape.tokens);
    kernels.backward(backward(), 0, shape.tokens);
  }
};

class FinishedSources : public KernelTest {
 protected:
  template <typename R>
  [[nodiscard]] const FinishedKernels<R>& kernels() const {
    return GetParam().finished->of<R>();
  }
  template <typename R, typename M>
  [[nodiscard]] const MixKernels<R, M>& mix() const {
    return kernels<R>().mix.template of<M>();
  }
  // Calls test.operator()<R, M>() for all four pairs.
  template <typename Test>
  static void for_all_types(Test test) {
    for_both_types([&]<typename R>() {
      for_both_types([&]<typename M>() { test.template operator()<R, M>(); });
    });
  }
};

}  // namespace wavroute::kernels::finished
