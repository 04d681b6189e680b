// The composed forms, the reference of every other test of the operators: values against the
// equations of docs/method.md written once more, gradients against finite differences of these, in
// double. Matching ratios and peaks are constants for the gradient: they are held fixed.
#include "tests/functional/support.h"

namespace wavroute::functional {
namespace {

constexpr int64_t kTokens = 3, kWidth = 7;
const Eps kEps = {1e-3, 1e-12};

at::Tensor inverse_rms(const at::Tensor& v) {
  return 1.0 / (v.square().mean(-1) + kEps.norm).sqrt();
}
at::Tensor logit_of(const at::Tensor& v, const at::Tensor& query, const at::Tensor& bias) {
  return (v * query).sum(-1) * inverse_rms(v) + bias;
}
at::Tensor normed(const at::Tensor& h, const at::Tensor& gain) {
  return gain * h * inverse_rms(h).unsqueeze(-1);
}
at::Tensor held_ratio(const at::Tensor& detail, const at::Tensor& summary) {
  return ((summary.square().mean(-1) + kEps.matching) / (detail.square().mean(-1) + kEps.matching))
      .sqrt();
}

TEST(Composed, AddNormIsItsFormulaAndItsGradientTheDifference) {
  const Tensors arguments = {random_values({kTokens, kWidth}, "h"),
                             random_values({kTokens, kWidth}, "u"),
                             random_values({kWidth}, "scale"), random_values({kWidth}, "gain")};
  expect_differences(
      [](const Tensors& a) {
        const auto [h, x] = add_norm(a[0], a[1], a[3], kEps.norm, a[2], 0.5);
        return Tensors{h, x};
      },
      [](const Tensors& a) {
        const at::Tensor h = a[0] + 0.5 * a[2] * a[1];
        return Tensors{h, normed(h, a[3])};
      },
      arguments);
}

TEST(Composed, SourceScalarsAreTheMatchingRatioAndTheInverseRms) {
  const at::Tensor row = random_values({kTokens, kWidth}, "row");
  const at::Tensor summary = random_values({kTokens, kWidth}, "summary");
  const auto [ratio, inverse] = source_scalars(row, summary, kEps);
  const at::Tensor rho = held_ratio(row, summary);
  EXPECT_LE(error_of(ratio, rho), 1e-14);
  EXPECT_LE(error_of(inverse, inverse_rms(row * rho.unsqueeze(-1))), 1e-14);
  const auto own = source_scalars(row, {}, kEps);
  EXPECT_TRUE(at::equal(own.ratio, at::ones_like(ratio)));
}

TEST(Composed, RowsOfZerosWithoutAnEpsAreNoNumbersOfTheirOwn) {
  const at::Tensor zeros = at::zeros({kTokens, kWidth}, at::kDouble);
  const auto [ratio, inverse] = source_scalars(zeros, zeros, {0.0, 0.0});
  EXPECT_EQ(ratio.abs().sum().item<double>(), 0.0);
  EXPECT_EQ(inverse.abs().sum().item<double>(), 0.0);
}

// In double the composed form, in float our kernels.
TEST(Composed, RowsOfZerosWithoutAnEpsTakeNoGradient) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const at::Tensor zeros = at::zeros({kTokens, kWidth}, type);
    const at::Tensor gain = random_values({kWidth}, "gain").to(type);
    const at::Tensor h = zeros.clone().set_requires_grad(true);
    const at::Tensor x = add_norm(h, {}, gain, 0.0).x;
    EXPECT_TRUE(at::equal(x.detach(), zeros));
    torch::autograd::backward({x}, {at::ones_like(x)});
    EXPECT_TRUE(at::equal(h.grad(), zeros));

    const at::Tensor u = zeros.clone().set_requires_grad(true);
    const Mixture finished = {zeros, at::zeros({kTokens}, type), at::ones({kTokens}, type)};
    const at::Tensor query = random_values({kWidth}, "query").to(type);
    const Read read = route_read(u, 1, Tensors(2), {0, 1}, finished,
                                 {query, at::zeros({2}, type), gain}, {0.0, 0.0});
    torch::autograd::backward({read.x}, {at::ones_like(read.x)});
    EXPECT_TRUE(at::equal(u.grad(), zeros));
  }
}

TEST(Composed, RouteMixIsItsFormulaAndItsGradientTheDifference) {
  for (const int64_t n : {1, 4}) {
    SCOPED_TRACE(n);
    const Sources sources = random_sources(n, kTokens, kWidth, kEps);
    const int64_t routers = 3;
    Tensors arguments = sources.rows;
    arguments.push_back(random_values({routers, kWidth}, "query"));
    arguments.push_back(random_values({routers, n}, "bias"));
    const at::Tensor peak = route_mix(sources.rows, sources.ratio, sources.inverse,
                                      arguments[static_cast<size_t>(n)], arguments.back())
                                .peak;
    expect_differences(
        [&](const Tensors& a) {
          const Mixture m = route_mix(at::TensorList(a).slice(0, static_cast<size_t>(n)),
                                      sources.ratio, sources.inverse, a[a.size() - 2], a.back());
          EXPECT_FALSE(m.peak.requires_grad());
          return Tensors{m.mixed, m.mass};
        },
        [&](const Tensors& a) {
          Tensors mixed, mass;
          for (int64_t i = 0; i < routers; ++i) {
            at::Tensor o = at::zeros({kTokens, kWidth}, at::kDouble);
            at::Tensor s = at::zeros({kTokens}, at::kDouble);
            for (int64_t j = 0; j < n; ++j) {
              const at::Tensor v = a[static_cast<size_t>(j)] * sources.ratio[j].unsqueeze(-1);
              const at::Tensor logit = logit_of(v, a[a.size() - 2][i], a.back()[i][j]);
              const at::Tensor weight = (logit - peak[i]).exp();
              o = o + weight.unsqueeze(-1) * v;
              s = s + weight;
            }
            mixed.push_back(o);
            mass.push_back(s);
          }
          return Tensors{at::stack(mixed), at::stack(mass)};
        },
        arguments);
  }
}

// Every layout of parts, every form a source; the last part is written, with and without updates
// before it.
TEST(Composed, RouteReadIsItsFormulaAndItsGradientTheDifference) {
  for (const int64_t count : {0, 1, 2, 4}) {
    const std::vector<int64_t> forms(count == 4   ? std::vector<int64_t>{0, 1, 2}
                                     : count == 2 ? std::vector<int64_t>{0, 1}
                                     : count == 1 ? std::vector<int64_t>{0}
                                                  : std::vector<int64_t>{});
    for (const bool fresh : {false, true}) {
      if (count == 0 && fresh) continue;
      SCOPED_TRACE(::testing::Message() << count << " parts, fresh " << fresh);
      const int64_t written = count - 1;
      Tensors arguments = {random_values({kTokens, kWidth}, "u"),
                           random_values({kTokens, kWidth}, "mixed"),
                           random_values({kTokens}, "mass").abs() + 0.5,
                           random_values({kWidth}, "query"),
                           random_values({static_cast<int64_t>(forms.size())}, "bias"),
                           random_values({kWidth}, "gain")};
      if (count == 0) arguments.erase(arguments.begin());
      const size_t first = count == 0 ? 0 : 1;
      for (int64_t k = 0; k < count - (fresh ? 1 : 0); ++k) {
        arguments.push_back(random_values({kTokens, kWidth}, "part" + std::to_string(k)));
      }
      const at::Tensor peak = random_values({kTokens}, "peak");
      const auto parts_of = [&](const Tensors& a) {
        Tensors parts(a.begin() + static_cast<int64_t>(first) + 5, a.end());
        parts.resize(static_cast<size_t>(count));
        return parts;
      };
      const auto sums_of = [&](const Tensors& a) {
        Tensors parts = parts_of(a), sums;
        if (count > 0) {
          at::Tensor& part = parts[static_cast<size_t>(written)];
          part = part.defined() ? part + a[0] : a[0];
        }
        for (const int64_t form : forms) {
          at::Tensor sum = at::zeros({kTokens, kWidth}, at::kDouble);
          for (int64_t k = 0; k < count; ++k) {
            sum = sum + sign_in(form, k) * parts[static_cast<size_t>(k)];
          }
          sums.push_back(sum);
        }
        return sums;
      };
      Tensors ratios;
      for (const at::Tensor& sum : sums_of(arguments)) {
        ratios.push_back(held_ratio(sum, sums_of(arguments)[0]));
      }
      expect_differences(
          [&](const Tensors& a) {
            const Read read = route_read(count == 0 ? at::Tensor() : a[0], written, parts_of(a),
                                         forms, {a[first], peak, a[first + 1]},
                                         {a[first + 2], a[first + 3], a[first + 4]}, kEps);
            return count == 0 ? Tensors{read.x} : Tensors{read.part, read.x};
          },
          [&](const Tensors& a) {
            at::Tensor total = a[first + 1] * peak.exp();
            at::Tensor h = a[first] * peak.exp().unsqueeze(-1);
            const Tensors sums = sums_of(a);
            for (size_t s = 0; s < sums.size(); ++s) {
              const at::Tensor v = sums[s] * ratios[s].unsqueeze(-1);
              const at::Tensor weight =
                  logit_of(v, a[first + 2], a[first + 3][static_cast<int64_t>(s)]).exp();
              total = total + weight;
              h = h + weight.unsqueeze(-1) * v;
            }
            const at::Tensor x = normed(h / total.unsqueeze(-1), a[first + 4]);
            if (count == 0) return Tensors{x};
            const Tensors parts = parts_of(a);
            const at::Tensor& part = parts[static_cast<size_t>(written)];
            return Tensors{part.defined() ? part + a[0] : a[0], x};
          },
          arguments);
    }
  }
}

TEST(Composed, RouteFinishGivesTheSignedSumsAndTheirGradients) {
  Tensors arguments = {random_values({kTokens, kWidth}, "u")};
  for (int64_t k = 0; k < 4; ++k) {
    arguments.push_back(random_values({kTokens, kWidth}, "part" + std::to_string(k)));
  }
  expect_differences(
      [](const Tensors& a) {
        const Tensors parts(a.begin() + 1, a.end());
        return route_finish(a[0], 2, parts, {0, 1, 2}, kEps).rows;
      },
      [](const Tensors& a) {
        Tensors rows;
        for (int64_t f = 0; f < 3; ++f) {
          at::Tensor row = sign_in(f, 2) * a[0];
          for (int64_t k = 0; k < 4; ++k) {
            row = row + sign_in(f, k) * a[static_cast<size_t>(k) + 1];
          }
          rows.push_back(row);
        }
        return rows;
      },
      arguments);
  const Tensors parts(arguments.begin() + 1, arguments.end());
  const Finished finished = route_finish({}, 0, parts, {0, 1, 2}, kEps);
  EXPECT_TRUE(at::equal(finished.ratio[0], at::ones({kTokens}, at::kDouble)));
  EXPECT_LE(error_of(finished.ratio[2], held_ratio(finished.rows[2], finished.rows[0])), 1e-14);
}

}  // namespace
}  // namespace wavroute::functional
