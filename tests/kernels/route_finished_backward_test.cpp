// The gradients of the mixture of finished sources.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tests/kernels/finished_problem.h"

namespace wavroute::kernels::finished {
namespace {

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

}  // namespace
}  // namespace wavroute::kernels::finished
