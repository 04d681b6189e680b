// The operators as an autograd graph, the dispatcher and threads see them.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/function.h>

#include "tests/functional/support.h"

namespace wavroute::functional {
namespace {

const Eps kEps = {1e-5, 1e-12};
constexpr int64_t kTokens = 150, kWidth = 37, kRouters = 3, kSources = 4;

at::Tensor leaf(const std::vector<int64_t>& sizes, const std::string& name,
                at::ScalarType type = at::kFloat) {
  return random_values(sizes, name).to(type).set_requires_grad(true);
}

// Leaves of every operator, and calls with them.
struct Fixture {
  explicit Fixture(at::ScalarType type = at::kFloat)
      : sources(random_sources(kSources, kTokens, kWidth, kEps)),
        rows(to_type(sources.rows, at::kFloat)),
        u(leaf({kTokens, kWidth}, "u", type)),
        scale(leaf({kWidth}, "scale")),
        gain(leaf({kWidth}, "gain")),
        query(leaf({kRouters, kWidth}, "query")),
        reader_query(leaf({kWidth}, "reader")),
        bias(leaf({kRouters, kSources}, "bias")),
        running_bias(leaf({3}, "running")),
        mixed(leaf({kTokens, kWidth}, "mixed")),
        mass((random_values({kTokens}, "mass").abs() + 1.0).to(at::kFloat).set_requires_grad(true)),
        peak(random_values({kTokens}, "peak").to(at::kFloat)) {
    for (at::Tensor& row : rows) row.set_requires_grad(true);
    for (int k = 0; k < 4; ++k) parts.push_back(leaf({kTokens, kWidth}, std::to_string(k)));
  }
  [[nodiscard]] Tensors add_norm() const {
    const auto [h, x] = functional::add_norm(parts[0], u, gain, kEps.norm, scale, 0.5);
    return {h, x};
  }
  [[nodiscard]] Tensors mix() const {
    const Mixture m =
        route_mix(rows, sources.ratio.to(at::kFloat), sources.inverse.to(at::kFloat), query, bias);
    return {m.mixed, m.mass};
  }
  [[nodiscard]] Tensors read() const {
    const Read read = route_read(u, 3, parts, {0, 1, 2}, {mixed, peak, mass},
                                 {reader_query, running_bias, gain}, kEps);
    return {read.part, read.x};
  }
  [[nodiscard]] Tensors finish() const { return route_finish(u, 3, parts, {0, 1, 2}, kEps).rows; }
  [[nodiscard]] std::vector<std::function<Tensors()>> calls() const {
    return {[this] { return add_norm(); }, [this] { return mix(); }, [this] { return read(); },
            [this] { return finish(); }};
  }
  [[nodiscard]] Tensors leaves() const {
    Tensors all = {u, scale, gain, query, reader_query, bias, running_bias, mixed, mass};
    all.insert(all.end(), rows.begin(), rows.end());
    all.insert(all.end(), parts.begin(), parts.end());
    return all;
  }

  Sources sources;
  Tensors rows;
  at::Tensor u, scale, gain, query, reader_query, bias, running_bias, mixed, mass, peak;
  Tensors parts;
};

void back(const Tensors& results) {
  Tensors weights;
  for (const at::Tensor& result : results) weights.push_back(at::ones_like(result));
  torch::autograd::backward(results, weights);
}

TEST(Graph, EveryCallIsOneNode) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Fixture f(type);
    size_t op = 0;
    for (const auto& call : f.calls()) {
      SCOPED_TRACE(::testing::Message() << "operator " << op++);
      const Tensors results = call();
      for (const at::Tensor& result : results) {
        ASSERT_TRUE(result.grad_fn());
        EXPECT_EQ(result.grad_fn().get(), results[0].grad_fn().get());
      }
      for (const auto& edge : results[0].grad_fn()->next_edges()) {
        if (!edge.function) continue;  // a constant of the gradient
        EXPECT_NE(edge.function->name().find("AccumulateGrad"), std::string::npos)
            << edge.function->name();
      }
    }
  }
}

TEST(Graph, AConstantHasNoGradient) {
  const Fixture f;
  const Mixture m = route_mix(f.rows, f.sources.ratio.to(at::kFloat),
                              f.sources.inverse.to(at::kFloat), f.query, f.bias);
  EXPECT_FALSE(m.peak.requires_grad());
  const Finished finished = route_finish(f.u, 3, f.parts, {0, 1, 2}, kEps);
  EXPECT_FALSE(finished.ratio.requires_grad());
  EXPECT_FALSE(finished.inverse.requires_grad());
  EXPECT_FALSE(source_scalars(f.rows[0], f.rows[1], kEps).ratio.requires_grad());
}

// Using one result gives the same gradients as zeros for the others.
TEST(Graph, UnusedResultsCountAsZeros) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const size_t count = Fixture().calls().size();
    for (size_t op = 0; op < count; ++op) {
      const size_t results = Fixture(type).calls()[op]().size();
      for (size_t used = 0; used < results; ++used) {
        SCOPED_TRACE(::testing::Message() << "operator " << op << ", result " << used);
        const Fixture alone(type), beside(type);
        const Tensors one = alone.calls()[op](), all = beside.calls()[op]();
        back({one[used]});
        Tensors weights;
        for (size_t r = 0; r < all.size(); ++r) {
          weights.push_back(r == used ? at::ones_like(all[r]) : at::zeros_like(all[r]));
        }
        torch::autograd::backward(all, weights);
        for (size_t i = 0; i < alone.leaves().size(); ++i) {
          const at::Tensor got = alone.leaves()[i].grad(), want = beside.leaves()[i].grad();
          if (got.defined()) {
            EXPECT_LE((got - want).abs().max().item<double>(), 1e-6) << i;
          } else if (want.defined()) {
            EXPECT_EQ(want.abs().max().item<double>(), 0.0) << i;
          }
        }
      }
    }
  }
}

TEST(Graph, ArgumentsAndGradientsMayBeStrided) {
  const Fixture f;
  const auto strided = [](const at::Tensor& t) { return at::stack({t, t}, -1).select(-1, 1); };
  Fixture g;
  const auto replace = [&](at::Tensor& t) { t = strided(t.detach()).set_requires_grad(true); };
  for (at::Tensor* t :
       {&g.u, &g.scale, &g.gain, &g.query, &g.reader_query, &g.bias, &g.mixed, &g.mass})
    replace(*t);
  for (at::Tensor& t : g.rows) replace(t);
  for (at::Tensor& t : g.parts) replace(t);
  ASSERT_FALSE(g.rows[0].is_contiguous());
  for (size_t op = 0; op < f.calls().size(); ++op) {
    const Tensors expected = f.calls()[op](), actual = g.calls()[op]();
    for (size_t r = 0; r < expected.size(); ++r) EXPECT_TRUE(at::equal(actual[r], expected[r]));
    back(expected);
    Tensors weights;
    for (const at::Tensor& result : actual) {
      weights.push_back(at::ones({1}).expand(result.sizes()));
    }
    torch::autograd::backward(actual, weights);
  }
  for (size_t i = 0; i < f.leaves().size(); ++i) {
    EXPECT_TRUE(at::equal(g.leaves()[i].grad(), f.leaves()[i].grad())) << i;
  }
}

TEST(Graph, BitsDoNotDependOnThreads) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    Tensors expected;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      const Fixture f(type);
      Tensors all;
      for (const auto& call : f.calls()) {
        const Tensors results = call();
        back(results);
        all.insert(all.end(), results.begin(), results.end());
      }
      for (const at::Tensor& t : f.leaves()) all.push_back(t.grad());
      if (threads == 1) expected = all;
      for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(at::equal(all[i], expected[i])) << i;
    }
    at::set_num_threads(1);
  }
}

// The value of a part before its write is not kept: a caller may reuse its memory.
TEST(Graph, APartThatWasReplacedMayBeOverwritten) {
  const Fixture f, g;
  const Tensors results = f.read(), expected = g.read();
  f.parts[3].detach().zero_();
  {
    const at::NoGradGuard no_grad;
    f.parts[3].add_(1.0);
  }
  back(results);
  back(expected);
  EXPECT_TRUE(at::equal(f.u.grad(), g.u.grad()));
  // A part that a reader used must not change.
  const Tensors again = g.read();
  {
    const at::NoGradGuard no_grad;
    g.parts[2].add_(1.0);
  }
  EXPECT_THROW(back(again), c10::Error);
}

TEST(Graph, AGradientHasNoGradientOfItsOwn) {
  const Fixture f;
  size_t op = 0;
  for (const auto& call : f.calls()) {
    SCOPED_TRACE(::testing::Message() << "operator " << op++);
    const at::Tensor sum = call().back().square().sum();
    for (const at::Tensor& first : torch::autograd::grad({sum}, f.leaves(), {}, true, true, true)) {
      if (!first.defined()) continue;  // of an argument of another operator
      EXPECT_THROW(torch::autograd::backward({first.sum()}, {}, true), c10::Error);
    }
  }
}

// Shapes and types from shapes and types.
TEST(Meta, HasTheShapesAndTypesOfTheCpu) {
  const c10::InferenceMode inference;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const bool exact = type == at::kDouble;
    const at::ScalarType stream = exact ? at::kDouble : at::kFloat;
    const auto results = [&](at::Device device) {
      const auto make = [&](at::IntArrayRef sizes, at::ScalarType of) {
        return at::ones(sizes, at::TensorOptions(of).device(device));
      };
      const at::Tensor u = make({5, 8}, type), part = make({5, 8}, stream);
      const at::Tensor vector = make({8}, stream), tokens = make({5}, stream);
      Tensors all;
      const auto [h, x] = add_norm(part, u, vector, 1e-6, vector);
      const auto plain = add_norm(part, {}, {}, 1e-6, {}, 1.0, type);
      const auto scalars = source_scalars(u, u, kEps);
      const Mixture m = route_mix({part, part}, make({2, 5}, stream), make({2, 5}, stream),
                                  make({3, 8}, stream), make({3, 2}, stream));
      const Mixture of_rows = route_mix({u, u}, make({2, 5}, stream), make({2, 5}, stream),
                                        make({3, 8}, stream), make({3, 2}, stream));
      const Read read = route_read(u, 0, Tensors{part, part}, {0, 1}, {part, tokens, tokens},
                                   {vector, make({2}, stream), vector}, kEps);
      const Read only = route_read({}, 0, {}, {}, {part, tokens, tokens},
                                   {vector, make({0}, stream), {}}, kEps, type);
      const Finished finished = route_finish(u, 0, Tensors{part, part}, {0, 1}, kEps);
      all = {h,
             x,
             plain.h,
             plain.x,
             scalars.ratio,
             scalars.inverse,
             m.mixed,
             m.peak,
             m.mass,
             read.part,
             read.x,
             only.x,
             of_rows.mixed,
             finished.rows[0],
             finished.rows[1],
             finished.ratio,
             finished.inverse};
      return all;
    };
    const Tensors cpu = results(at::kCPU), meta = results(at::kMeta);
    for (size_t i = 0; i < cpu.size(); ++i) {
      EXPECT_TRUE(meta[i].is_meta());
      EXPECT_EQ(meta[i].sizes(), cpu[i].sizes()) << i;
      EXPECT_EQ(meta[i].scalar_type(), cpu[i].scalar_type()) << i;
      EXPECT_EQ(meta[i].strides(), cpu[i].strides()) << i;
    }
  }
}

// What the error of a call says after the operator's name; empty where there is none.
std::string error_of_call(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return {};
}

TEST(Errors, NameTheOperatorWhatWasExpectedAndWhatCame) {
  const at::Tensor rows = at::ones({5, 8}), tokens = at::ones({5}), vector = at::ones({8});
  const at::Tensor scalars = at::ones({1, 5});
  EXPECT_EQ(error_of_call([&] {
              (void)add_norm(rows, at::ones({5, 7}), vector, 1e-6);
            }),
            "[add_norm] expected u of shape [5, 8], got [5, 7]");
  EXPECT_EQ(error_of_call([&] { (void)add_norm(rows, rows, vector.to(at::kDouble), 1e-6); }),
            "[add_norm] expected gain of type Float, got Double");
  EXPECT_EQ(error_of_call([&] { (void)route_mix({}, scalars, scalars, rows, rows); }),
            "[route_mix] expected at least one row, got none");
  EXPECT_EQ(error_of_call([&] {
              (void)route_mix({rows}, scalars, scalars, rows, at::ones({5, 2}));
            }),
            "[route_mix] expected bias of shape [5, 1], got [5, 2]");
  const Mixture finished = {rows, tokens, tokens};
  const Reader reader = {vector, at::ones({1}), vector};
  EXPECT_EQ(error_of_call([&] { (void)route_read(rows, 1, Tensors(1), {0}, finished, reader); }),
            "[route_read] expected a part to write of 0 to 0, got 1");
  EXPECT_EQ(error_of_call([&] { (void)route_read(rows, 0, Tensors(1), {1}, finished, reader); }),
            "[route_read] expected forms below 1 of 1 parts, got 1");
  EXPECT_EQ(error_of_call([&] { (void)route_read(rows, 0, Tensors(3), {0}, finished, reader); }),
            "[route_read] expected 0, 1, 2 or 4 parts, got 3");
  EXPECT_EQ(error_of_call([&] { (void)route_finish(rows, 0, Tensors(1), {}); }),
            "[route_finish] expected at least one form, got none");
  EXPECT_EQ(error_of_call([&] {
              (void)source_scalars(rows, at::ones({4, 8}));
            }),
            "[source_scalars] expected summary of shape [5, 8], got [4, 8]");
}

}  // namespace
}  // namespace wavroute::functional
