#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {
namespace {

// Rows are rounded to R before both sides read them and all arithmetic is in float, so that Bf16
// has the tolerance of float: some tens of roundings of 6e-8, relative to the largest element.
constexpr double kTolerance = 1e-5;
// Where mixtures are stored as Bf16, once for every 32 sources.
template <typename M>
constexpr double kMixedTolerance = std::is_same_v<M, float> ? kTolerance : 1e-2;
constexpr double kNormEps = 0.3;  // large enough for its part in the gradient to be seen

struct Shape {
  int64_t d, tokens, sources, routers;
};
constexpr Shape kShapes[] = {
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

// Gradients of loss(), by method.md's equations of section 4.
struct Gradients {
  std::vector<Doubles> rows;
  Doubles query, bias;
};
Gradients differentiate(const Reference& r, const Doubles& dh) {
  const auto [d, tokens, sources, routers] = r.shape;
  Gradients g{std::vector<Doubles>(sources, Doubles(tokens * d)), Doubles(routers * d),
              Doubles(routers * sources)};
  for (int64_t i = 0; i < routers; ++i) {
    for (int64_t t = 0; t < tokens; ++t) {
      const double* up = dh.data() + (i * tokens + t) * d;
      double lse = 0;
      const Doubles a = r.shares(i, t, &lse), h = r.read(i, t, &lse);
      const double along = std::inner_product(h.begin(), h.end(), up, 0.0);
      for (int64_t j = 0; j < sources; ++j) {
        double upward = 0, dot = 0;
        for (int64_t c = 0; c < d; ++c) {
          upward += up[c] * r.source(j, t, c);
          dot += r.query[i * d + c] * r.source(j, t, c);
        }
        const double dlogit = a[j] * (upward - along), inverse = r.inverse(j, t);
        g.bias[i * sources + j] += dlogit;
        for (int64_t c = 0; c < d; ++c) {
          const double v = r.source(j, t, c);
          g.query[i * d + c] += dlogit * v * inverse;
          const double dv =
              a[j] * up[c] + dlogit * (r.query[i * d + c] * inverse -
                                       v * dot * std::pow(inverse, 3) / static_cast<double>(d));
          g.rows[j][t * d + c] += r.ratio[j][t] * dv;
        }
      }
    }
  }
  return g;
}

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
  std::vector<const R*> row_list;
  std::vector<const float*> ratio_list, inverse_list;
  std::vector<float*> grad_list;

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
      row_list.push_back(rows[j].data());
      ratio_list.push_back(ratio[j].data());
      inverse_list.push_back(inverse[j].data());
      grad_list.push_back(grads[j].data());
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
            .tokens = shape.tokens,
            .pitch = shape.tokens * shape.d,
            .rows = row_list.data(),
            .ratio = ratio_list.data(),
            .inverse = inverse_list.data(),
            .query = query.data(),
            .bias = bias.data(),
            .logits = logits.data(),
            .peak = peak.data(),
            .mass = mass.data(),
            .mixed = mixed.data()};
  }
  [[nodiscard]] MixFinishedBackward<R, M> backward() {
    return {.d = shape.d,
            .sources = shape.sources,
            .routers = shape.routers,
            .tokens = shape.tokens,
            .pitch = shape.tokens * shape.d,
            .rows = row_list.data(),
            .ratio = ratio_list.data(),
            .inverse = inverse_list.data(),
            .query = query.data(),
            .bias = bias.data(),
            .logits = logits.data(),
            .lse = lse.data(),
            .along = along.data(),
            .dh = dh.data(),
            .grads = grad_list.data(),
            .first = first.get(),
            .query_grad = query_grad.data(),
            .bias_grad = bias_grad.data()};
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

// ---- scalars of a source

template <typename R>
struct Scalars {
  std::vector<float> ratio, inverse;
};
template <typename R>
Scalars<R> scalars(const FinishedKernels<R>& kernels, int64_t d, const std::vector<R>& row,
                   const std::vector<R>& summary, double norm_eps, double matching_eps) {
  const auto tokens = static_cast<int64_t>(row.size()) / d;
  Scalars<R> result{std::vector<float>(tokens, -77), std::vector<float>(tokens, -77)};
  kernels.source_scalars({.d = d,
                          .row = row.data(),
                          .summary = &row == &summary ? row.data() : summary.data(),
                          .norm_eps = static_cast<float>(norm_eps),
                          .matching_eps = static_cast<float>(matching_eps),
                          .ratio = result.ratio.data(),
                          .inverse = result.inverse.data()},
                         0, tokens);
  return result;
}

TEST_P(FinishedSources, DetailIsMatchedToItsSummary) {
  for_both_types([&]<typename R>() {
    for (const int64_t d : {1, 37, 64, 333, 1024}) {
      const int64_t tokens = 5;
      const auto row = random_values<R>(tokens * d, 1, 0.3),
                 summary = random_values<R>(tokens * d, 2);
      const auto found = scalars(kernels<R>(), d, row, summary, kNormEps, 0.01);
      Doubles ratio, inverse;
      for (int64_t t = 0; t < tokens; ++t) {
        double rows = 0, summaries = 0;
        for (int64_t c = 0; c < d; ++c) {
          rows += std::pow(to_double(row[t * d + c]), 2) / static_cast<double>(d);
          summaries += std::pow(to_double(summary[t * d + c]), 2) / static_cast<double>(d);
        }
        ratio.push_back(std::sqrt((summaries + 0.01) / (rows + 0.01)));
        inverse.push_back(1 / std::sqrt(ratio.back() * ratio.back() * rows + kNormEps));
      }
      expect_near(found.ratio, ratio, kTolerance);
      expect_near(found.inverse, inverse, kTolerance);
    }
  });
}

TEST_P(FinishedSources, SummaryHasRatioExactlyOne) {
  for_both_types([&]<typename R>() {
    const auto row = random_values<R>(3 * 37, 1);
    const auto found = scalars(kernels<R>(), 37, row, row, 0, 0);
    EXPECT_EQ(found.ratio, std::vector<float>(3, 1.0F));
  });
}

TEST_P(FinishedSources, RowsOfZerosHaveFiniteScalars) {
  for_both_types([&]<typename R>() {
    const std::vector<R> zeros(2 * 37, stored<R>(0));
    const auto summary = random_values<R>(2 * 37, 1);
    for (const double matching_eps : {0.0, 1e-12}) {
      for (const double norm_eps : {0.0, 1e-6}) {
        for (const auto* other : {&zeros, &summary}) {
          for (const auto& found :
               {scalars(kernels<R>(), 37, zeros, *other, norm_eps, matching_eps),
                scalars(kernels<R>(), 37, *other, zeros, norm_eps, matching_eps)}) {
            for (const float x : found.ratio) EXPECT_TRUE(std::isfinite(x));
            for (const float x : found.inverse) EXPECT_TRUE(std::isfinite(x));
          }
        }
      }
    }
  });
}

// ---- forward

TEST_P(FinishedSources, MixIsThePartialSoftmaxOverTheSources) {
  for_all_types([&]<typename R, typename M>() {
    for (const Shape& shape : kShapes) {
      Problem<R, M> p(shape);
      const Reference r = p.reference();
      mix<R, M>().forward(p.forward(), 0, shape.tokens);
      Doubles logits, peaks, masses, mixed;
      for (int64_t i = 0; i < shape.routers; ++i) {
        for (int64_t j = 0; j < shape.sources; ++j) {
          for (int64_t t = 0; t < shape.tokens; ++t) logits.push_back(r.logit(i, j, t));
        }
        for (int64_t t = 0; t < shape.tokens; ++t) {
          double peak = -std::numeric_limits<double>::infinity(), mass = 0;
          Doubles sum(shape.d);
          for (int64_t j = 0; j < shape.sources; ++j) peak = std::max(peak, r.logit(i, j, t));
          for (int64_t j = 0; j < shape.sources; ++j) {
            const double weight = std::exp(r.logit(i, j, t) - peak);
            mass += weight;
            for (int64_t c = 0; c < shape.d; ++c) sum[c] += weight * r.source(j, t, c);
          }
          peaks.push_back(peak);
          masses.push_back(mass);
          mixed.insert(mixed.end(), sum.begin(), sum.end());
        }
      }
      expect_near(p.logits, logits, kTolerance);
      expect_near(p.peak, peaks, kTolerance);
      expect_near(p.mass, masses, kTolerance);
      expect_near(p.mixed, mixed, kMixedTolerance<M>);
    }
  });
}

TEST_P(FinishedSources, LogitsAreOptionalAndChangeNothing) {
  for_all_types([&]<typename R, typename M>() {
    Problem<R, M> kept({64, 9, 35, 3}), dropped({64, 9, 35, 3});
    mix<R, M>().forward(kept.forward(), 0, 9);
    auto forward = dropped.forward();
    forward.logits = nullptr;
    mix<R, M>().forward(forward, 0, 9);
    expect_same_bits(dropped.peak, kept.peak);
    expect_same_bits(dropped.mass, kept.mass);
    expect_same_bits(dropped.mixed, kept.mixed);
  });
}

TEST_P(FinishedSources, HugeLogitsStayFinite) {
  for_all_types([&]<typename R, typename M>() {
    Problem<R, M> p({37, 4, 40, 2});
    for (size_t n = 0; n < p.bias.size(); ++n) p.bias[n] = n % 2 == 0 ? 5000.0F : -5000.0F;
    p.finish();
    p.run_both(mix<R, M>());
    for (const M x : p.mixed) ASSERT_TRUE(std::isfinite(to_double(x)));
    for (const float x : p.mass) ASSERT_TRUE(x >= 1 && x <= 40);
    for (const float x : p.query_grad) ASSERT_TRUE(std::isfinite(x));
  });
}

TEST_P(FinishedSources, DetailOfZerosAddsNothingButItsShare) {
  for_all_types([&]<typename R, typename M>() {
    for (const double eps : {0.0, 1e-12}) {
      Problem<R, M> p({37, 3, 4, 2});
      std::fill(p.rows[2].begin(), p.rows[2].end(), stored<R>(0));
      const auto found = scalars(kernels<R>(), 37, p.rows[2], p.rows[1], 0, eps);
      p.ratio[2] = found.ratio;
      p.inverse[2] = found.inverse;
      p.ratio_list[2] = p.ratio[2].data();
      p.inverse_list[2] = p.inverse[2].data();
      p.run_both(mix<R, M>());
      const Reference r = p.reference();
      for (int64_t i = 0; i < 2; ++i) {
        for (int64_t t = 0; t < 3; ++t) {
          EXPECT_FLOAT_EQ(p.logits[(i * 4 + 2) * 3 + t], p.bias[i * 4 + 2]);
          double mass = 0;
          for (int64_t j = 0; j < 4; ++j) mass += std::exp(r.logit(i, j, t) - p.peak[i * 3 + t]);
          EXPECT_NEAR(p.mass[i * 3 + t], mass, kTolerance * mass);
        }
      }
      for (const M x : p.mixed) ASSERT_TRUE(std::isfinite(to_double(x)));
      for (const auto* numbers : {&p.grads[2], &p.query_grad, &p.bias_grad}) {
        for (const float x : *numbers) ASSERT_TRUE(std::isfinite(x));
      }
    }
  });
}

TEST_P(FinishedSources, OutOfRangeTokensAreNotTouched) {
  for_all_types([&]<typename R, typename M>() {
    Problem<R, M> p({37, 12, 3, 2});
    const auto grads_before = p.grads;
    for (const auto& [begin, end] : {std::pair{5, 5}, std::pair{3, 7}}) {
      mix<R, M>().forward(p.forward(), begin, end);
      for (int64_t row = 0; row < 2 * 12; ++row) {
        const bool inside = row % 12 >= begin && row % 12 < end;
        EXPECT_EQ(p.peak[row] != -77, inside);
        EXPECT_EQ(p.mass[row] != -77, inside);
        for (int64_t c = 0; c < 37; ++c) ASSERT_EQ(to_double(p.mixed[row * 37 + c]) != -77, inside);
      }
    }
    mix<R, M>().backward(p.backward(), 3, 7);
    for (int64_t j = 0; j < 3; ++j) {
      for (int64_t n = 0; n < 12 * 37; ++n) {
        const bool inside = n / 37 >= 3 && n / 37 < 7;
        ASSERT_EQ(p.grads[j][n] != grads_before[j][n], inside);
      }
    }
  });
}

TEST_P(FinishedSources, TokensDoNotDependOnTheRange) {
  for_all_types([&]<typename R, typename M>() {
    for (const Shape& shape :
         {Shape{37, 21, 40, 18}, Shape{256, 21, 7, 16}, Shape{64, 21, 33, 1}}) {
      Problem<R, M> whole(shape), split(shape);
      whole.run_both(mix<R, M>());
      const int64_t cuts[] = {0, 1, 4, 4, 15, 21};
      for (int n = 0; n + 1 < 6; ++n) mix<R, M>().forward(split.forward(), cuts[n], cuts[n + 1]);
      for (int n = 0; n + 1 < 6; ++n) {
        mix<R, M>().backward(split.backward(), cuts[n], cuts[n + 1]);
      }
      expect_same_bits(split.logits, whole.logits);
      expect_same_bits(split.peak, whole.peak);
      expect_same_bits(split.mass, whole.mass);
      expect_same_bits(split.mixed, whole.mixed);
      for (int64_t j = 0; j < shape.sources; ++j) expect_same_bits(split.grads[j], whole.grads[j]);
      expect_near(split.query_grad, to_double(whole.query_grad), kTolerance);
      expect_near(split.bias_grad, to_double(whole.bias_grad), kTolerance);
    }
  });
}

// ---- backward

TEST_P(FinishedSources, GradientsAreThoseOfTheSoftmaxAndTheKeyNorm) {
  for_all_types([&]<typename R, typename M>() {
    for (const Shape& shape : kShapes) {
      Problem<R, M> p(shape);
      Gradients expected = differentiate(p.reference(), to_double(p.dh));
      for (int64_t j = 0; j < shape.sources; ++j) {
        for (size_t n = 0; n < p.grads[j].size() && !p.first[j]; ++n) {
          expected.rows[j][n] += p.grads[j][n];
        }
        if (p.first[j]) p.grads[j].assign(p.grads[j].size(), std::nanf(""));
      }
      for (size_t n = 0; n < p.query_grad.size(); ++n) expected.query[n] += p.query_grad[n];
      for (size_t n = 0; n < p.bias_grad.size(); ++n) expected.bias[n] += p.bias_grad[n];
      p.run_both(mix<R, M>());
      for (int64_t j = 0; j < shape.sources; ++j) {
        expect_near(p.grads[j], expected.rows[j], kTolerance);
      }
      expect_near(p.query_grad, expected.query, kTolerance);
      expect_near(p.bias_grad, expected.bias, kTolerance);
    }
  });
}

TEST_P(FinishedSources, GradientsAgreeWithFiniteDifferences) {
  Problem<float, float> p({7, 3, 5, 4});
  for (int64_t j = 0; j < 5; ++j) p.first[j] = true;
  std::fill(p.query_grad.begin(), p.query_grad.end(), 0.0F);
  std::fill(p.bias_grad.begin(), p.bias_grad.end(), 0.0F);
  p.run_both(mix<float, float>());

  Reference r = p.reference();
  const Doubles dh = to_double(p.dh);
  const auto slopes = [&](Doubles& inputs) {
    Doubles result;
    for (double& x : inputs) {
      const double at = x, step = 1e-5;
      x = at + step;
      const double above = r.loss(dh);
      x = at - step;
      result.push_back((above - r.loss(dh)) / (2 * step));
      x = at;
    }
    return result;
  };
  for (int64_t j = 0; j < 5; ++j) expect_near(p.grads[j], slopes(r.rows[j]), kTolerance);
  expect_near(p.query_grad, slopes(r.query), kTolerance);
  expect_near(p.bias_grad, slopes(r.bias), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(, FinishedSources, every_isa(), isa_name);

}  // namespace
}  // namespace wavroute::kernels
