// Finished sources: their scalars, and the mixture that every router of a block reads of them.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/kernels/finished_problem.h"

namespace wavroute::kernels::finished {
namespace {

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
                          .row = {row.data(), d},
                          .summary = {&row == &summary ? row.data() : summary.data(), d},
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
    forward.logits = {};
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

INSTANTIATE_TEST_SUITE_P(, FinishedSources, every_isa(), isa_name);

}  // namespace
}  // namespace wavroute::kernels::finished
