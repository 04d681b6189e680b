// A write of the running block and the reader after it, backwards.
#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "tests/kernels/running_step.h"

namespace wavroute::kernels::running {
namespace {

TEST_P(RouteRunningTest, AnUpdateThatNothingReadsTakesTheSignedGradients) {
  for_both_types([&]<typename C>() {
    for (int sums = 1; sums <= kMostRunning; ++sums) {
      const float signs[] = {1, -1, 1};
      std::array<Rows<float>, kMostRunning> grads;
      UpdateGrad<C> a;
      a.d = 37;
      a.sums = sums;
      std::vector<double> expected(37 * 3);
      for (int s = 0; s < sums; ++s) {
        grads[s] = random_values(37 * 3, 51 + static_cast<uint64_t>(s));
        a.grads[s] = {grads[s].data(), a.d};
        a.sign[s] = signs[s];
        for (size_t i = 37; i < expected.size(); ++i) expected[i] += double{signs[s]} * grads[s][i];
      }
      Rows<C> du(37 * 3);
      a.du = {du.data(), a.d};
      kernels<C>().update_grad(a, 1, 3);
      expect_near(du, expected, kTolerance<C>);
    }
  });
}

// ---- one reader backwards ----

// The backward of a Step's reader.
template <typename C>
struct StepBack {
  explicit StepBack(Step<C>& step)
      : dx(random_values<C>(Step<C>::kTokens * step.d, 41)),
        du(dx.size()),
        dh(dx.size()),
        along(Step<C>::kTokens),
        gain_grad(step.gain.size()),
        query_grad(step.gain.size()) {
    for (int f = 0; f < form_count(step.parts); ++f) {
      grads[f] = random_values(Step<C>::kTokens * step.d, 42 + static_cast<uint64_t>(f));
    }
  }
  ReadBackward<C> arguments(const Step<C>& step) {
    ReadBackward<C> a;
    a.d = step.d;
    a.dx = {dx.data(), a.d};
    a.h = {step.h.data(), a.d};
    a.inverse_rms = step.inverse_rms.data();
    a.gain = step.gain.data();
    a.gain_grad = gain_grad.data();
    a.parts.count = step.parts;
    for (int k = 0; k < step.parts; ++k) a.parts.rows[k] = {step.before[k].data(), a.d};
    if (step.parts > 0) a.parts.rows[step.parts - 1] = {step.after.data(), a.d};
    a.running = form_count(step.parts);
    for (int f = 0; f < a.running; ++f) {
      a.sources[f] = {.form = f,
                      .bias = step.biases[f],
                      .dot = step.dots[f].data(),
                      .ratio = step.ratios[f].data(),
                      .inverse = step.inverses[f].data()};
      a.forms[f].grad = {grads[f].data(), a.d};
    }
    a.query = step.query.data();
    a.lse = step.lse.data();
    a.query_grad = query_grad.data();
    a.dh = {dh.data(), a.d};
    a.along = along.data();
    a.du = {du.data(), a.d};
    return a;
  }
  Rows<C> dx, du, dh;
  Rows<float> along, gain_grad, query_grad;
  std::array<Rows<float>, kMostForms> grads;
};

TEST_P(RouteRunningTest, AGradientThatJoinsAnotherIsAddedToItFirst) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 2, 43);
    run_and_expect(step, step.arguments());
    StepBack<C> joined(step), added(step);
    const Rows<float> other = random_values(Step<C>::kTokens * step.d, 44);
    ReadBackward<C> a = joined.arguments(step);
    a.forms[1].joined = {other.data(), a.d};
    kernels<C>().read_backward(a, 0, Step<C>::kTokens);
    for (size_t i = 0; i < other.size(); ++i) added.grads[1][i] += other[i];
    kernels<C>().read_backward(added.arguments(step), 0, Step<C>::kTokens);
    expect_same_bits(joined.grads[1], added.grads[1]);
    expect_same_bits(joined.du, added.du);
  });
}

TEST_P(RouteRunningTest, WithoutRunningSumsOnlyTheNormIsTakenBack) {
  for_both_types([&]<typename C>() {
    for (const bool norm : {false, true}) {
      Step<C> step(37, 0, 44);
      kernels<C>().write_read(step.arguments(), 0, Step<C>::kTokens);
      StepBack<C> back(step);
      ReadBackward<C> a = back.arguments(step);
      a.query = a.lse = nullptr;
      a.query_grad = nullptr;
      a.du = {};
      if (!norm) {
        a.gain = a.inverse_rms = nullptr;
        a.gain_grad = nullptr;
      }
      kernels<C>().read_backward(a, 0, Step<C>::kTokens);
      std::vector<double> dh, along;
      for (int64_t t = 0; t < Step<C>::kTokens; ++t) {
        const Row h = row_of(step.h, t, 37);
        Row g = row_of(back.dx, t, 37);
        if (norm) {
          for (size_t c = 0; c < g.size(); ++c) g[c] *= double{step.gain[c]};
          const double r = step.inverse_rms[static_cast<size_t>(t)], gh = dot(g, h);
          for (size_t c = 0; c < g.size(); ++c) g[c] = r * g[c] - h[c] * r * r * r / 37 * gh;
        }
        dh.insert(dh.end(), g.begin(), g.end());
        along.push_back(dot(g, h));
      }
      expect_near(back.dh, dh, kTolerance<C>);
      expect_near(back.along, along, 1e-5, 37);
    }
  });
}

TEST_P(RouteRunningTest, GradientsOfATokenAreTheSameInEveryRange) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 4, 45);
    run_and_expect(step, step.arguments());
    StepBack<C> whole(step), split(step);
    kernels<C>().read_backward(whole.arguments(step), 0, Step<C>::kTokens);
    const ReadBackward<C> a = split.arguments(step);
    for (const auto& [begin, end] : {std::pair{0, 1}, {1, 1}, {1, 4}, {4, 7}}) {
      kernels<C>().read_backward(a, begin, end);
    }
    expect_same_bits(split.dh, whole.dh);
    expect_same_bits(split.du, whole.du);
    expect_same_bits(split.along, whole.along);
    for (int f = 0; f < kMostForms; ++f) expect_same_bits(split.grads[f], whole.grads[f]);
  });
}

}  // namespace
}  // namespace wavroute::kernels::running
