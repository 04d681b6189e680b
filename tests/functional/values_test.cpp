// The operators on our kernels against the composed forms in double, which the same calls run for
// double arguments: values and gradients.
#include "tests/functional/support.h"

namespace wavroute::functional {
namespace {

const Eps kEps = {1e-5, 1e-12};

struct Shape {
  int64_t tokens, d;
};
// One token, an empty batch, more than one chunk of tokens; widths with and without a rest.
const std::vector<Shape> kShapes = {{5, 37}, {67, 64}, {3, 333}, {2, 1024}, {1, 64}, {0, 37}};

// A float sum of d terms; a bfloat16 result is rounded to 8 bits, and gradients are made from an h
// that is kept in it.
double tolerance(at::ScalarType type) { return type == at::kFloat ? 5e-6 : 2e-2; }

// `call` in the kernels' types, argument i in types[i], against the same call in double.
// of_read: the arguments start with `mixed`, `mass`, `query` and `bias`. The gradients of the last
// three are made of dh . v - dh . h, which may cancel: they are compared on the scale of its terms.
void expect_as_exact(const Call& call, const Tensors& exact,
                     const std::vector<at::ScalarType>& types, at::ScalarType compute,
                     bool of_read = false) {
  Tensors arguments;
  for (size_t i = 0; i < exact.size(); ++i) arguments.push_back(exact[i].to(types[i]));
  const Outcome actual = run(call, arguments), expected = run(call, exact);
  for (size_t i = 0; i < types.size(); ++i) {
    const at::Tensor& gradient = actual.gradients[i];
    EXPECT_EQ(gradient.defined() ? gradient.scalar_type() : types[i], types[i]);
  }
  std::vector<double> scales;
  if (of_read) {
    const at::Tensor& dh = expected.gradients[0];
    const double size = dh.norm().item<double>(), root = std::sqrt(static_cast<double>(dh.size(1)));
    scales = {0.0, size * root, size * root, size};
  }
  expect_close(actual, expected, tolerance(compute), scales);
}

class Types : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(, Types, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(Types, AddNormHasTheValuesAndGradientsOfTheComposedForm) {
  const at::ScalarType type = GetParam();
  for (const auto& [tokens, d] : kShapes) {
    for (const bool scaled : {false, true}) {
      for (const bool norms : {false, true}) {
        SCOPED_TRACE(::testing::Message() << tokens << " x " << d << ", " << scaled << norms);
        Tensors exact = {random_values({tokens, 1, d}, "h"),
                         random_values({tokens, 1, d}, "u", type)};
        std::vector<at::ScalarType> types = {at::kFloat, type};
        if (scaled) exact.push_back(random_values({d == 64 ? 1 : d}, "scale"));
        if (norms) exact.push_back(random_values({d}, "gain"));
        types.resize(exact.size(), at::kFloat);
        expect_as_exact(
            [&](const Tensors& a) {
              const auto [h, x] = add_norm(a[0], a[1], norms ? a.back() : at::Tensor(), kEps.norm,
                                           scaled ? a[2] : at::Tensor(), scaled ? 0.75 : 1.0);
              return Tensors{h, x};
            },
            exact, types, type);
      }
    }
  }
}

TEST_P(Types, AScaleWithoutAnUpdateScalesNothing) {
  const at::ScalarType type = GetParam();
  at::Tensor scale = at::ones({37}).set_requires_grad(true);
  const at::Tensor h = random_values({5, 37}, "h").to(at::kFloat).set_requires_grad(true);
  const at::Tensor gain = at::ones({37});
  const at::Tensor x = add_norm(h, {}, gain, kEps.norm, scale, 1.0, type).x;
  EXPECT_TRUE(at::equal(x, add_norm(h, {}, gain, kEps.norm, {}, 1.0, type).x));
  x.to(at::kFloat).square().sum().backward();
  EXPECT_TRUE(!scale.grad().defined() || at::equal(scale.grad(), at::zeros({37})));
}

TEST_P(Types, AddNormWithoutAnUpdateIsTheNorm) {
  const at::ScalarType type = GetParam();
  const Tensors exact = {random_values({5, 37}, "h"), random_values({37}, "gain")};
  expect_as_exact(
      [&](const Tensors& a) {
        const bool kernels = a[0].scalar_type() == at::kFloat;
        const auto [h, x] =
            add_norm(a[0], {}, a[1], kEps.norm, {}, 1.0, kernels ? type : at::kDouble);
        EXPECT_TRUE(at::equal(h, a[0]));
        return Tensors{h, x};
      },
      exact, {at::kFloat, at::kFloat}, type);
}

TEST_P(Types, SourceScalarsAreThoseOfTheComposedForm) {
  const at::ScalarType type = GetParam();
  for (const auto& [tokens, d] : kShapes) {
    const at::Tensor row = random_values({tokens, d}, "row", type);
    const at::Tensor summary = random_values({tokens, d}, "summary", type);
    for (const at::Tensor& s : {summary, at::Tensor()}) {
      const auto exact = source_scalars(row, s, kEps);
      const auto actual = source_scalars(row.to(type), s.defined() ? s.to(type) : s, kEps);
      EXPECT_EQ(actual.ratio.scalar_type(), at::kFloat);
      EXPECT_LE(error_of(actual.ratio, exact.ratio), 1e-6);
      EXPECT_LE(error_of(actual.inverse, exact.inverse), 1e-6);
    }
  }
}

// Of rows in `type`; also more routers and sources than a tile of the kernel has.
TEST_P(Types, RouteMixHasTheValuesAndGradientsOfTheComposedForm) {
  const at::ScalarType type = GetParam();
  for (const auto& [tokens, d] : kShapes) {
    for (const auto& [n, routers] : {std::pair<int64_t, int64_t>{1, 1}, {4, 3}, {35, 17}}) {
      if (n == 35 && d != 37) continue;
      SCOPED_TRACE(::testing::Message() << tokens << " x " << d << ", " << n << " " << routers);
      const Sources sources = random_sources(n, tokens, d, kEps, type);
      Tensors exact = sources.rows;
      std::vector<at::ScalarType> types(exact.size(), type);
      exact.push_back(random_values({routers, d}, "query") / std::sqrt(d));
      exact.push_back(random_values({routers, n}, "bias"));
      types.resize(exact.size(), at::kFloat);
      expect_as_exact(
          [&, count = static_cast<size_t>(n)](const Tensors& a) {
            const at::ScalarType stream = a.back().scalar_type();
            const Mixture m = route_mix(at::TensorList(a).slice(0, count), sources.ratio.to(stream),
                                        sources.inverse.to(stream), a[a.size() - 2], a.back());
            return Tensors{m.mixed, m.mass, m.peak};
          },
          exact, types, type);
    }
  }
}

// The arguments of a reader of the running block.
struct ReadCase {
  int64_t parts = 0;
  std::vector<int64_t> forms;
  int64_t written = -1;          // the part; -1: no write
  std::vector<int64_t> missing;  // parts that hold no update yet
  bool norms = true;
};
// Every layout of details {}, {phase} or {split}, {phase, split}; S alone (partial_details off);
// details that are S for now; first updates of a part.
const std::vector<ReadCase> kReads = {{},
                                      {1, {0}, 0, {}},
                                      {1, {0}, 0, {0}},
                                      {1, {0, 0, 0}, 0, {}},
                                      {2, {0, 1}, 1, {}},
                                      {2, {0, 1}, 0, {1}},
                                      {2, {0, 1}, 1, {1}},
                                      {2, {0, 1, 0}, 0, {}},
                                      {2, {0}, 1, {}},
                                      {4, {0, 1, 2}, 0, {}},
                                      {4, {0, 1, 2}, 1, {}},
                                      {4, {0, 1, 2}, 2, {}},
                                      {4, {0, 1, 2}, 3, {}},
                                      {4, {0, 1, 2}, 3, {3}},
                                      {4, {0, 1, 2}, 3, {2}},
                                      {4, {0, 1, 2}, 1, {1, 2, 3}},
                                      {4, {0, 2}, 2, {}},
                                      {4, {0}, 2, {}},
                                      {4, {0, 1, 2}, -1, {}},
                                      {4, {0, 1, 2}, 1, {}, false},
                                      {0, {}, -1, {}, false}};

// Arguments: mixed, mass, query, bias, gain, then u, then the parts that are there.
Tensors read_arguments(const ReadCase& c, int64_t tokens, int64_t d, at::ScalarType type) {
  Tensors exact = {random_values({tokens, d}, "mixed"),
                   random_values({tokens}, "mass").abs().to(at::kFloat).to(at::kDouble) + 1.0,
                   (random_values({d}, "query") / std::sqrt(d)).to(at::kFloat).to(at::kDouble),
                   random_values({static_cast<int64_t>(c.forms.size())}, "bias"),
                   random_values({d}, "gain")};
  if (c.written >= 0) exact.push_back(random_values({tokens, d}, "u", type));
  for (int64_t k = 0; k < c.parts; ++k) {
    if (std::count(c.missing.begin(), c.missing.end(), k) > 0) continue;
    exact.push_back(random_values({tokens, d}, "part" + std::to_string(k)));
  }
  return exact;
}
Tensors parts_in(const ReadCase& c, const Tensors& a) {
  Tensors parts;
  auto next = a.begin() + (c.written >= 0 ? 6 : 5);
  for (int64_t k = 0; k < c.parts; ++k) {
    const bool there = std::count(c.missing.begin(), c.missing.end(), k) == 0;
    parts.push_back(there ? *next++ : at::Tensor());
  }
  return parts;
}

TEST_P(Types, RouteReadHasTheValuesAndGradientsOfTheComposedForm) {
  const at::ScalarType type = GetParam();
  for (size_t i = 0; i < kReads.size(); ++i) {
    const ReadCase& c = kReads[i];
    for (const auto& [tokens, d] : kShapes) {
      SCOPED_TRACE(::testing::Message() << "read " << i << ", " << tokens << " x " << d);
      const Tensors exact = read_arguments(c, tokens, d, type);
      std::vector<at::ScalarType> types(exact.size(), at::kFloat);
      if (c.written >= 0) types[5] = type;
      // Phase 1 has a good part of h: the gradient of `mixed` has the size of dh.
      const at::Tensor peak = random_values({tokens}, "peak").abs() + 2.0;
      expect_as_exact(
          [&](const Tensors& a) {
            const at::ScalarType stream = a[0].scalar_type();
            const bool kernels = stream == at::kFloat;
            const Read read = route_read(c.written >= 0 ? a[5] : at::Tensor(), c.written,
                                         parts_in(c, a), c.forms, {a[0], peak.to(stream), a[1]},
                                         {a[2], a[3], c.norms ? a[4] : at::Tensor()}, kEps,
                                         kernels ? type : at::kDouble);
            EXPECT_EQ(read.x.scalar_type(), kernels ? type : at::kDouble);
            EXPECT_EQ(read.part.defined(), c.written >= 0);
            return c.written >= 0 ? Tensors{read.part, read.x} : Tensors{read.x};
          },
          exact, types, type, /*of_read=*/true);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST_P(Types, RouteFinishHasTheValuesAndGradientsOfTheComposedForm) {
  const at::ScalarType type = GetParam();
  for (size_t i = 0; i < kReads.size(); ++i) {
    const ReadCase& c = kReads[i];
    if (c.parts == 0) continue;
    for (const auto& [tokens, d] : kShapes) {
      SCOPED_TRACE(::testing::Message() << "case " << i << ", " << tokens << " x " << d);
      const Tensors all = read_arguments(c, tokens, d, type);
      const Tensors exact(all.begin() + 5, all.end());
      std::vector<at::ScalarType> types(exact.size(), at::kFloat);
      if (c.written >= 0) types[0] = type;
      expect_as_exact(
          [&](const Tensors& a) {
            Tensors placed(5);
            placed.insert(placed.end(), a.begin(), a.end());
            Finished finished = route_finish(c.written >= 0 ? a[0] : at::Tensor(), c.written,
                                             parts_in(c, placed), c.forms, kEps);
            Tensors results = finished.rows;
            results.insert(results.end(), {finished.ratio, finished.inverse});
            return results;
          },
          exact, types, type);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace wavroute::functional
