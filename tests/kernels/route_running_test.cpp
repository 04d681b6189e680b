// A write of the running block and the reader after it against the equations of docs/method.md in
// double precision, forward and backward.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "tests/kernels/route_reference.h"

namespace wavroute::kernels {
namespace {

// The sign of part k in form f (route.h).
double sign_of(int form, int part) { return form > 0 && (part >> (form - 1) & 1) != 0 ? -1 : 1; }

// Some parts, an update to one of them, and a reader of all forms; every array is held here.
template <typename C>
struct Step {
  static constexpr int64_t kTokens = 7;
  Step(int64_t d, int parts, uint64_t seed)
      : d(d),
        parts(parts),
        u(random_values<C>(kTokens * d, seed)),
        after(static_cast<size_t>(kTokens * d), -77.0F),
        mixed(random_values<C>(kTokens * d, seed + 1, 3)),
        query(random_values(d, seed + 2, 2)),
        gain(random_values(d, seed + 3)),
        peak(random_values(kTokens, seed + 4, 2)),
        mass(kTokens, 1.75F),
        lse(kTokens),
        inverse_rms(kTokens),
        h(static_cast<size_t>(kTokens * d)),
        x(static_cast<size_t>(kTokens * d)) {
    for (int k = 0; k < parts; ++k) {
      before[k] = random_values(kTokens * d, seed + 5 + static_cast<uint64_t>(k), 1 + k);
    }
    for (int f = 0; f < kMostForms; ++f) {
      for (auto* kept : {&dots[f], &ratios[f], &inverses[f]}) kept->assign(kTokens, -77.0F);
    }
  }
  // Every form is a source, and the last part is written.
  WriteRead<C> arguments() {
    WriteRead<C> a;
    a.d = d;
    a.parts.count = parts;
    for (int k = 0; k < parts; ++k) a.parts.row[k] = before[k].data();
    if (parts > 0) a.write = {u.data(), parts - 1, before[parts - 1].data(), after.data()};
    a.running = form_count(parts);
    for (int f = 0; f < a.running; ++f) {
      a.sources[f] = {.form = f,
                      .bias = biases[f],
                      .dot = dots[f].data(),
                      .ratio = ratios[f].data(),
                      .inverse = inverses[f].data()};
    }
    a.query = query.data();
    a.peak = peak.data();
    a.mass = mass.data();
    a.mixed = mixed.data();
    a.norm_eps = static_cast<float>(kNormEps);
    a.matching_eps = static_cast<float>(kMatchingEps);
    a.lse = lse.data();
    a.gain = gain.data();
    a.h = h.data();
    a.x = x.data();
    a.inverse_rms = inverse_rms.data();
    return a;
  }
  // The forms of token t that the call with arguments `a` should see.
  [[nodiscard]] std::vector<Row> forms(const WriteRead<C>& a, int64_t t) const {
    std::vector<Row> result(static_cast<size_t>(form_count(parts)), Row(static_cast<size_t>(d)));
    for (int k = 0; k < parts; ++k) {
      const bool written = a.write.u != nullptr && a.write.part == k;
      const bool empty = written ? a.write.in == nullptr : a.parts.row[k] == nullptr;
      Row part = empty ? Row(static_cast<size_t>(d)) : row_of(before[k], t, d);
      const Row update = row_of(u, t, d);
      for (size_t c = 0; written && c < part.size(); ++c) part[c] += update[c];
      for (size_t f = 0; f < result.size(); ++f) {
        for (size_t c = 0; c < part.size(); ++c) {
          result[f][c] += sign_of(static_cast<int>(f), k) * part[c];
        }
      }
    }
    return result;
  }

  int64_t d;
  int parts;
  std::array<float, kMostForms> biases = {0, -0.5F, 0.25F};
  Rows<C> u;
  std::array<Rows<float>, kMostParts> before;
  Rows<float> after;
  std::array<Rows<float>, kMostForms> dots, ratios, inverses;
  Rows<C> mixed;
  Rows<float> query, gain, peak, mass, lse, inverse_rms;
  Rows<C> h, x;
};

// Holds what the call with arguments `a` gave for token t against the equations.
template <typename C>
void expect_step(const Step<C>& step, const WriteRead<C>& a, int64_t t) {
  const int64_t d = step.d;
  const auto at = static_cast<size_t>(t);
  const auto token = [&](const auto& rows) {
    return std::vector(rows.begin() + t * d, rows.begin() + (t + 1) * d);
  };
  if (a.write.u != nullptr) {
    Row part(static_cast<size_t>(d));
    if (a.write.in != nullptr) part = row_of(step.before[a.write.part], t, d);
    const Row update = row_of(step.u, t, d);
    for (size_t c = 0; c < part.size(); ++c) part[c] += update[c];
    expect_near(token(step.after), part, 1e-6);
  }
  const std::vector<Row> forms = step.forms(a, t);
  std::vector<Source> sources;
  for (int s = 0; s < a.running; ++s) {
    const int f = a.sources[s].form;
    const Row& v = forms[f];
    sources.push_back({v, a.sources[s].bias, f == 0 ? 1.0 : matching_ratio(forms[0], v)});
    const double scale = std::sqrt(dot(v, v) * static_cast<double>(d)) * 2;
    EXPECT_NEAR(step.dots[s][at], dot(to_double(step.query), v), 1e-6 * scale);
    EXPECT_NEAR(step.ratios[s][at], sources.back().ratio, 1e-5 * sources.back().ratio);
    const double inverse = sources.back().inverse(kNormEps);
    EXPECT_NEAR(step.inverses[s][at], inverse, 1e-5 * inverse);
  }
  const Reading expected =
      read_reference(sources, to_double(step.query), step.peak[at], step.mass[at],
                     row_of(step.mixed, t, d), to_double(step.gain));
  // Sources of the size of 1 may cancel in h.
  if (a.h != nullptr) expect_near(token(step.h), expected.h, kTolerance<C>, 1);
  expect_near(token(step.x), a.gain != nullptr ? expected.x : expected.h, kTolerance<C>);
  EXPECT_NEAR(step.lse[at], expected.lse, 1e-5 * (1 + std::abs(expected.lse)));
  EXPECT_NEAR(step.inverse_rms[at], expected.inverse_rms,
              1e-5 * expected.inverse_rms * std::max(1.0, expected.inverse_rms));
}

class RouteRunningTest : public KernelTest {
 protected:
  template <typename C>
  const RunningKernels<C>& kernels() {
    return GetParam().running->template of<C>();
  }
  template <typename C>
  void run_and_expect(Step<C>& step, const WriteRead<C>& a) {
    kernels<C>().write_read(a, 0, Step<C>::kTokens);
    for (int64_t t = 0; t < Step<C>::kTokens; ++t) expect_step(step, a, t);
  }
};
INSTANTIATE_TEST_SUITE_P(, RouteRunningTest, every_isa(), isa_name);

constexpr int kPartCounts[] = {0, 1, 2, 4};

TEST_P(RouteRunningTest, WritesAPartAndReadsTheSoftmaxOfAllSources) {
  for_both_types([&]<typename C>() {
    for (const int64_t d : {1, 37, 48, 64, 333, 1024, 2500}) {
      for (const int parts : kPartCounts) {
        SCOPED_TRACE(testing::Message() << "d " << d << ", parts " << parts);
        Step<C> step(d, parts, 11);
        run_and_expect(step, step.arguments());
      }
    }
  });
}

TEST_P(RouteRunningTest, AnyPartCanBeWritten) {
  for_both_types([&]<typename C>() {
    for (int part = 0; part < kMostParts; ++part) {
      Step<C> step(37, 4, 20);
      WriteRead<C> a = step.arguments();
      a.write.part = part;
      a.write.in = step.before[part].data();
      run_and_expect(step, a);
    }
  });
}

TEST_P(RouteRunningTest, TheFirstUpdateStartsAPart) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 2, 21);
    WriteRead<C> a = step.arguments();
    a.write.in = nullptr;
    run_and_expect(step, a);
  });
}

TEST_P(RouteRunningTest, APartWithoutUpdatesCountsAsZeros) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 4, 22);
    WriteRead<C> a = step.arguments();
    a.parts.row[1] = nullptr;
    run_and_expect(step, a);
  });
}

TEST_P(RouteRunningTest, WithoutAnUpdateThePartsAreReadAsTheyAre) {
  for_both_types([&]<typename C>() {
    for (const int parts : kPartCounts) {
      Step<C> step(37, parts, 23);
      WriteRead<C> a = step.arguments();
      a.write = {};
      run_and_expect(step, a);
    }
  });
}

TEST_P(RouteRunningTest, AReaderMayTakeTheSummaryAloneOrAFormTwice) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 4, 24);
    WriteRead<C> a = step.arguments();
    a.running = 1;
    run_and_expect(step, a);
    a = step.arguments();
    a.sources[2].form = 1;
    run_and_expect(step, a);
  });
}

TEST_P(RouteRunningTest, WhatIsNotKeptDoesNotChangeTheRest) {
  for_both_types([&]<typename C>() {
    Step<C> step(333, 4, 25);
    WriteRead<C> a = step.arguments();
    kernels<C>().write_read(a, 0, Step<C>::kTokens);
    const Rows<C> x = step.x;
    a.h = nullptr;
    a.lse = a.inverse_rms = nullptr;
    for (RunningSource& source : a.sources) source.dot = source.ratio = source.inverse = nullptr;
    step.x.assign(step.x.size(), C{});
    kernels<C>().write_read(a, 0, Step<C>::kTokens);
    expect_same_bits(step.x, x);
    a.gain = nullptr;
    run_and_expect(step, a);
  });
}

TEST_P(RouteRunningTest, ADetailOfZerosContributesNothing) {
  for_both_types([&]<typename C>() {
    for (const double eps : {0.0, kMatchingEps}) {
      for (const double norm_eps : {0.0, kNormEps}) {
        Step<C> step(37, 2, 27);
        WriteRead<C> a = step.arguments();
        a.write.in = nullptr;  // the second part is u, and so is the first: a - b = 0
        for (size_t i = 0; i < step.u.size(); ++i) {
          step.before[0][i] = static_cast<float>(to_double(step.u[i]));
        }
        a.matching_eps = static_cast<float>(eps);
        a.norm_eps = static_cast<float>(norm_eps);
        kernels<C>().write_read(a, 0, Step<C>::kTokens);
        for (int64_t t = 0; t < Step<C>::kTokens; ++t) {
          const Source summary{step.forms(a, t)[0]}, nothing{Row(37), step.biases[1], 0};
          const auto at = static_cast<size_t>(t);
          const Reading expected =
              read_reference({summary, nothing}, to_double(step.query), step.peak[at],
                             step.mass[at], row_of(step.mixed, t, 37), to_double(step.gain));
          expect_near(std::vector<C>(step.h.begin() + t * 37, step.h.begin() + (t + 1) * 37),
                      expected.h, kTolerance<C>);
        }
      }
    }
  });
}

TEST_P(RouteRunningTest, ATokenIsTheSameInEveryRange) {
  for_both_types([&]<typename C>() {
    for (const int64_t d : {37, 256}) {
      Step<C> whole(d, 4, 28), split = whole;
      kernels<C>().write_read(whole.arguments(), 0, Step<C>::kTokens);
      const WriteRead<C> a = split.arguments();
      for (const auto& [begin, end] : {std::pair{0, 1}, {1, 1}, {1, 4}, {4, 7}}) {
        kernels<C>().write_read(a, begin, end);
      }
      expect_same_bits(split.x, whole.x);
      expect_same_bits(split.h, whole.h);
      expect_same_bits(split.after, whole.after);
      expect_same_bits(split.lse, whole.lse);
    }
  });
}

TEST_P(RouteRunningTest, TokensOutsideTheRangeAreLeftAlone) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 1, 29);
    kernels<C>().write_read(step.arguments(), 2, 5);
    for (const int64_t t : {0, 1, 5, 6}) {
      EXPECT_EQ(step.after[static_cast<size_t>(t * 37)], -77.0F);
      EXPECT_EQ(to_double(step.x[static_cast<size_t>(t * 37)]), 0.0);
      EXPECT_EQ(step.dots[0][static_cast<size_t>(t)], -77.0F);
    }
    for (const int64_t t : {2, 3, 4}) expect_step(step, step.arguments(), t);
  });
}

TEST_P(RouteRunningTest, TheEndOfABlockStoresItsSumsWithTheirNumbers) {
  for_both_types([&]<typename C>() {
    for (const int parts : {1, 2, 4}) {
      for (const bool alias : {false, true}) {
        SCOPED_TRACE(testing::Message() << "parts " << parts << ", alias " << alias);
        Step<C> step(37, parts, 30);
        const WriteRead<C> reading = step.arguments();
        FinishBlock<C> a;
        a.d = step.d;
        a.write = reading.write;
        a.parts = reading.parts;
        a.sums = kMostRunning;
        a.norm_eps = reading.norm_eps;
        a.matching_eps = reading.matching_eps;
        std::array<Rows<float>, kMostRunning> rows;
        for (int s = 0; s < a.sums; ++s) {
          rows[s].assign(static_cast<size_t>(Step<C>::kTokens * step.d), -77.0F);
          a.form[s] = alias || s >= form_count(parts) ? 0 : s;
          a.row[s] = rows[s].data();
          a.ratio[s] = step.ratios[s].data();
          a.inverse[s] = step.inverses[s].data();
        }
        kernels<C>().finish_block(a, 0, Step<C>::kTokens);
        for (int64_t t = 0; t < Step<C>::kTokens; ++t) {
          const std::vector<Row> forms = step.forms(reading, t);
          for (int s = 0; s < a.sums; ++s) {
            const Row& v = forms[a.form[s]];
            expect_near(
                std::vector<float>(rows[s].begin() + t * 37, rows[s].begin() + (t + 1) * 37), v,
                1e-6);
            const Source source{v, 0, a.form[s] == 0 ? 1.0 : matching_ratio(forms[0], v)};
            const auto at = static_cast<size_t>(t);
            EXPECT_NEAR(step.ratios[s][at], source.ratio, 1e-5 * source.ratio);
            const double inverse = source.inverse(kNormEps);
            EXPECT_NEAR(step.inverses[s][at], inverse, 1e-5 * inverse);
          }
        }
      }
    }
  });
}

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
        a.grad[s] = grads[s].data();
        a.sign[s] = signs[s];
        for (size_t i = 37; i < expected.size(); ++i) expected[i] += double{signs[s]} * grads[s][i];
      }
      Rows<C> du(37 * 3);
      a.du = du.data();
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
    a.dx = dx.data();
    a.h = step.h.data();
    a.inverse_rms = step.inverse_rms.data();
    a.gain = step.gain.data();
    a.gain_grad = gain_grad.data();
    a.parts.count = step.parts;
    for (int k = 0; k < step.parts; ++k) a.parts.row[k] = step.before[k].data();
    if (step.parts > 0) a.parts.row[step.parts - 1] = step.after.data();
    a.running = form_count(step.parts);
    for (int f = 0; f < a.running; ++f) {
      a.sources[f] = {.form = f,
                      .bias = step.biases[f],
                      .dot = step.dots[f].data(),
                      .ratio = step.ratios[f].data(),
                      .inverse = step.inverses[f].data()};
      a.forms[f].grad = grads[f].data();
    }
    a.query = step.query.data();
    a.lse = step.lse.data();
    a.query_grad = query_grad.data();
    a.dh = dh.data();
    a.along = along.data();
    a.du = du.data();
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
    a.forms[1].joined = other.data();
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
      a.du = nullptr;
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
}  // namespace wavroute::kernels
