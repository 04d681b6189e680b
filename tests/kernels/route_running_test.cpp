// The running block against the equations of docs/method.md in double precision, and its gradients
// against central finite differences of these.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "kernel_test.h"

namespace wavroute::kernels {
namespace {

using Row = std::vector<double>;
template <typename C>
using Rows = std::vector<C>;

// Sums over d terms are taken in another order; a Bf16 result is rounded to 8 bits.
template <typename C>
constexpr double kTolerance = sizeof(C) == sizeof(float) ? 1e-5 : 4e-3;
// A gradient is made from an h that is kept in C, and from differences of its products.
template <typename C>
constexpr double kGradTolerance = sizeof(C) == sizeof(float) ? 1e-5 : 2e-2;
constexpr double kNormEps = 1e-6, kMatchingEps = 1e-12;

double dot(const Row& a, const Row& b) {
  double total = 0;
  for (size_t c = 0; c < a.size(); ++c) total += a[c] * b[c];
  return total;
}
double mean_square(const Row& a) { return dot(a, a) / static_cast<double>(a.size()); }

template <typename T>
Row row_of(const std::vector<T>& rows, int64_t t, int64_t d) {
  const auto first = rows.begin() + t * d;
  return to_double(std::vector<T>(first, first + d));
}

struct Source {
  Row sum;
  double bias = 0;
  double ratio = 1;
  [[nodiscard]] double inverse(double eps) const {
    return 1 / std::sqrt(ratio * ratio * mean_square(sum) + eps);
  }
};
struct Reading {
  Row h, x;
  double lse = 0, inverse_rms = 0;
};

// One token's reader: softmax over phase 1's part and the running sources, then the PreNorm.
Reading read_reference(const std::vector<Source>& sources, const Row& query, double peak,
                       double mass, const Row& mixed, const Row& gain) {
  double total = mass * std::exp(peak);
  Row h = mixed;
  for (double& x : h) x *= std::exp(peak);
  for (const Source& source : sources) {
    const double logit =
        source.ratio * source.inverse(kNormEps) * dot(query, source.sum) + source.bias;
    total += std::exp(logit);
    for (size_t c = 0; c < h.size(); ++c) h[c] += std::exp(logit) * source.ratio * source.sum[c];
  }
  for (double& x : h) x /= total;
  Reading result{h, h, std::log(total), 1 / std::sqrt(mean_square(h) + kNormEps)};
  for (size_t c = 0; c < h.size(); ++c) result.x[c] *= gain[c] * result.inverse_rms;
  return result;
}
double matching_ratio(const Row& summary, const Row& detail) {
  return std::sqrt((mean_square(summary) + kMatchingEps) / (mean_square(detail) + kMatchingEps));
}

// ---- one write and read -------------------------------------------------------------------------

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
        mixed(random_values(kTokens * d, seed + 1, 3)),
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
  Rows<float> mixed, query, gain, peak, mass, lse, inverse_rms;
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
  Rows<C> dx, du;
  Rows<float> dh, along, gain_grad, query_grad;
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
      expect_near(back.dh, dh, 1e-5);
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

// ---- a whole block, forward and backward --------------------------------------------------------

// A block of wav: update i = 1..8 is written to the sums and, but for the last, read by router i.
constexpr int kUpdates = 8, kReaders = 7;
constexpr int64_t kBlockTokens = 3;
constexpr float kSigns[kMostRunning][kUpdates + 1] = {
    {0, 1, 1, 1, 1, 1, 1, 1, 1}, {0, 1, -1, 1, -1, 1, -1, 1, -1}, {0, 1, 1, 1, 1, -1, -1, -1, -1}};
// The part of an update, and how many the kernels see after it.
int part_of(int update) {
  return (kSigns[1][update] < 0 ? 1 : 0) + (kSigns[2][update] < 0 ? 2 : 0);
}
int parts_after(int update) { return update == 1 ? 1 : update <= kUpdates / 2 ? 2 : 4; }
// The form of sum s: P differs from S from the second update on, Q from the second half on.
int form_of(int s, int update) {
  const int parts = parts_after(update);
  if (s == 1) return parts == 1 ? 0 : 1;
  return s == 2 && parts == 4 ? 2 : 0;
}

// Everything that a block's loss depends on, one after the other, so that numbers and gradients
// have the same places.
struct Layout {
  explicit Layout(int64_t d) : d(d) {}
  int64_t d;
  [[nodiscard]] int64_t rows() const { return kBlockTokens * d; }
  [[nodiscard]] int64_t update(int i) const { return (i - 1) * rows(); }
  [[nodiscard]] int64_t mixed(int i) const { return update(kUpdates + 1) + (i - 1) * rows(); }
  [[nodiscard]] int64_t query(int i) const { return mixed(kReaders + 1) + (i - 1) * d; }
  [[nodiscard]] int64_t gain(int i) const { return query(kReaders + 1) + (i - 1) * d; }
  [[nodiscard]] int64_t bias(int i) const { return gain(kReaders + 1) + (i - 1) * 2; }
  [[nodiscard]] int64_t peak(int i) const { return bias(kReaders + 1) + (i - 1) * kBlockTokens; }
  [[nodiscard]] int64_t size() const { return peak(kReaders + 1); }
};

Row slice(const std::vector<double>& numbers, int64_t begin, int64_t count) {
  return {numbers.begin() + begin, numbers.begin() + begin + count};
}
constexpr double kMass = 1.5;

// The loss sum x . dx over all readers + sum V . dV over the finished sums. `ratios` are filled at
// the base point and held after that.
struct BlockReference {
  Layout layout;
  std::array<bool, kMostRunning> read;
  std::vector<double> dx;                                  // [readers, tokens, d]
  std::array<std::vector<double>, kMostRunning> finished;  // [tokens, d]
  std::vector<double> ratios;

  double loss(const std::vector<double>& numbers) {
    const int64_t d = layout.d;
    const bool base = ratios.empty();
    size_t next_ratio = 0;
    double total = 0;
    for (int64_t t = 0; t < kBlockTokens; ++t) {
      std::vector<Row> sums(kMostRunning, Row(static_cast<size_t>(d)));
      for (int i = 1; i <= kUpdates; ++i) {
        const Row u = slice(numbers, layout.update(i) + t * d, d);
        for (int s = 0; s < kMostRunning; ++s) {
          for (size_t c = 0; c < u.size(); ++c) sums[s][c] += kSigns[s][i] * u[c];
        }
        if (i > kReaders) break;
        std::vector<Source> sources;
        for (int s = 0; s < kMostRunning; ++s) {
          if (!read[s]) continue;
          if (base) ratios.push_back(s == 0 ? 1.0 : matching_ratio(sums[0], sums[s]));
          const double bias = s == 0 ? 0.0 : numbers[layout.bias(i) + s - 1];
          sources.push_back({sums[s], bias, ratios[next_ratio++]});
        }
        const Reading reading = read_reference(
            sources, slice(numbers, layout.query(i), d), numbers[layout.peak(i) + t], kMass,
            slice(numbers, layout.mixed(i) + t * d, d), slice(numbers, layout.gain(i), d));
        total += dot(reading.x, slice(dx, (i - 1) * layout.rows() + t * d, d));
      }
      for (int s = 0; s < kMostRunning; ++s) {
        total += dot(sums[s], slice(finished[s], t * d, d));
      }
    }
    return total;
  }
};

// The same block by the kernels.
template <typename C>
class Block {
 public:
  Block(int64_t d, std::array<bool, kMostRunning> read)
      : layout(d),
        read(read),
        numbers(random_values(layout.size(), 31)),
        gradient(static_cast<size_t>(layout.size())),
        dx(random_values<C>(kReaders * layout.rows(), 32)) {
    for (int i = 1; i <= kUpdates; ++i) {
      updates.emplace_back();
      for (int64_t j = 0; j < layout.rows(); ++j) {
        float& number = numbers[layout.update(i) + j];
        updates.back().push_back(stored<C>(number));
        number = static_cast<float>(to_double(updates.back().back()));
      }
    }
    for (int s = 0; s < kMostRunning; ++s) {
      grads[s] = random_values(layout.rows(), 33 + static_cast<uint64_t>(s));
      finished[s] = to_double(grads[s]);
      for (auto& kept : kept_of[s]) kept.assign(kReaders * kBlockTokens, 0.0F);
    }
    h.resize(kReaders * layout.rows());
    lse.resize(kReaders * kBlockTokens);
    inverse_rms.resize(kReaders * kBlockTokens);
    rows.resize(kUpdates + 1);
  }

  [[nodiscard]] BlockReference reference() const {
    return {layout, read, to_double(dx), finished, {}};
  }

  // Update i, and reader i after it; the rows that a reader sees are kept.
  void forward(const RunningKernels<C>& kernels, int i) {
    rows[i] = rows[i - 1];
    const int part = part_of(i);
    std::vector<float> fresh(layout.rows(), std::numeric_limits<float>::quiet_NaN());
    WriteRead<C> a;
    a.d = layout.d;
    a.write = {updates[i - 1].data(), part,
               rows[i - 1][part].empty() ? nullptr : rows[i - 1][part].data(), fresh.data()};
    a.parts = parts_of(i);
    for (int s = 0; s < kMostRunning; ++s) {
      if (!read[s]) continue;
      a.sources[a.running++] = {
          .form = form_of(s, i),
          .bias = s > 0 && i <= kReaders ? numbers[layout.bias(i) + s - 1] : 0,
          .dot = kept(s, 0, i),
          .ratio = kept(s, 1, i),
          .inverse = kept(s, 2, i)};
    }
    const std::vector<float> mass(kBlockTokens, static_cast<float>(kMass));
    a.query = &numbers[layout.query(i)];
    a.gain = &numbers[layout.gain(i)];
    a.mixed = &numbers[layout.mixed(i)];
    a.peak = &numbers[layout.peak(i)];
    a.mass = mass.data();
    a.norm_eps = static_cast<float>(kNormEps);
    a.matching_eps = static_cast<float>(kMatchingEps);
    a.h = &h[(i - 1) * layout.rows()];
    a.lse = &lse[(i - 1) * kBlockTokens];
    a.inverse_rms = &inverse_rms[(i - 1) * kBlockTokens];
    kernels.write_read(a, 0, kBlockTokens);
    rows[i][part] = std::move(fresh);
  }

  // Reader i.
  void backward(const RunningKernels<C>& kernels, int i) {
    std::vector<float> dh(layout.rows()), along(kBlockTokens);
    std::vector<C> du(layout.rows());
    ReadBackward<C> a;
    a.d = layout.d;
    a.dx = &dx[(i - 1) * layout.rows()];
    a.h = &h[(i - 1) * layout.rows()];
    a.inverse_rms = &inverse_rms[(i - 1) * kBlockTokens];
    a.gain = &numbers[layout.gain(i)];
    a.gain_grad = &gradient[layout.gain(i)];
    a.parts = parts_of(i);
    for (int s = 0; s < kMostRunning; ++s) {
      const int form = form_of(s, i);
      if (form == s) {
        a.forms[form].grad = grads[s].data();
        a.forms[form].sign = kSigns[s][i];
      } else if (i == kReaders || form_of(s, i + 1) == s) {
        a.forms[form].joined = grads[s].data();
      }
      if (!read[s]) continue;
      a.sources[a.running++] = {.form = form,
                                .bias = s > 0 ? numbers[layout.bias(i) + s - 1] : 0,
                                .dot = kept(s, 0, i),
                                .ratio = kept(s, 1, i),
                                .inverse = kept(s, 2, i),
                                .bias_grad = s > 0 ? &gradient[layout.bias(i) + s - 1] : nullptr};
    }
    a.query = &numbers[layout.query(i)];
    a.lse = &lse[(i - 1) * kBlockTokens];
    a.query_grad = &gradient[layout.query(i)];
    a.dh = dh.data();
    a.along = along.data();
    a.du = du.data();
    kernels.read_backward(a, 0, kBlockTokens);
    for (int64_t j = 0; j < layout.rows(); ++j) {
      gradient[layout.update(i) + j] = static_cast<float>(to_double(du[j]));
    }
    give_finished(i, dh, along);
  }

  // du of the last update: nothing reads between it and the end of the block.
  void backward_of_last_update() {
    for (int64_t j = 0; j < layout.rows(); ++j) {
      for (int s = 0; s < kMostRunning; ++s) {
        gradient[layout.update(kUpdates) + j] += kSigns[s][kUpdates] * grads[s][j];
      }
    }
  }

  Layout layout;
  std::array<bool, kMostRunning> read;
  std::vector<float> numbers, gradient;

 private:
  // After update i.
  [[nodiscard]] Parts parts_of(int i) const {
    Parts parts;
    parts.count = parts_after(i);
    for (int k = 0; k < parts.count; ++k) {
      if (!rows[i][k].empty()) parts.row[k] = rows[i][k].data();
    }
    return parts;
  }
  float* kept(int s, int which, int i) { return &kept_of[s][which][(i - 1) * kBlockTokens]; }

  // Gradients of phase 1's results, which reach it through dh and `along`:
  // h = sum_j a_j v_j with a_j proportional to e^peak for all finished sources.
  void give_finished(int i, const std::vector<float>& dh, const std::vector<float>& along) {
    for (int64_t t = 0; t < kBlockTokens; ++t) {
      const double weight = std::exp(numbers[layout.peak(i) + t] - lse[(i - 1) * kBlockTokens + t]);
      double product = 0;
      for (int64_t c = t * layout.d; c < (t + 1) * layout.d; ++c) {
        gradient[layout.mixed(i) + c] = static_cast<float>(weight * dh[c]);
        product += double{dh[c]} * numbers[layout.mixed(i) + c];
      }
      gradient[layout.peak(i) + t] = static_cast<float>(weight * (product - kMass * along[t]));
    }
  }

  std::vector<std::vector<C>> updates;
  std::vector<std::array<std::vector<float>, kMostParts>> rows;  // of the parts, after each update
  std::vector<C> dx, h;
  std::array<std::vector<float>, kMostRunning> grads;
  std::array<std::vector<double>, kMostRunning> finished;
  std::array<std::array<std::vector<float>, 3>, kMostRunning> kept_of;
  std::vector<float> lse, inverse_rms;
};

TEST_P(RouteRunningTest, EveryGradientOfABlockIsItsFiniteDifference) {
  for_both_types([&]<typename C>() {
    for (const int64_t d : {5, 16, 37}) {
      for (const auto& read :
           {std::array{true, true, true}, {true, false, true}, {true, false, false}}) {
        SCOPED_TRACE(testing::Message() << "d " << d << ", details " << read[1] << read[2]);
        Block<C> block(d, read);
        for (int i = 1; i <= kReaders; ++i) block.forward(kernels<C>(), i);
        block.backward_of_last_update();
        for (int i = kReaders; i >= 1; --i) block.backward(kernels<C>(), i);

        BlockReference reference = block.reference();
        std::vector<double> numbers = to_double(block.numbers);
        reference.loss(numbers);
        const Layout& at = block.layout;
        const std::array groups = {at.update(1), at.mixed(1), at.query(1), at.gain(1),
                                   at.bias(1),   at.peak(1),  at.size()};
        // Each kind of number is held to its own scale. All numbers for the smallest d, a part
        // of them for the others.
        for (size_t group = 0; group + 1 < groups.size(); ++group) {
          SCOPED_TRACE(testing::Message() << "group " << group);
          std::vector<double> expected;
          std::vector<float> actual;
          const int64_t stride = d == 5 || groups[group + 1] - groups[group] < 30 ? 1 : 11;
          for (int64_t j = groups[group]; j < groups[group + 1]; j += stride) {
            const double base = numbers[j], step = 1e-5;
            numbers[j] = base + step;
            const double above = reference.loss(numbers);
            numbers[j] = base - step;
            const double below = reference.loss(numbers);
            numbers[j] = base;
            expected.push_back((above - below) / (2 * step));
            actual.push_back(block.gradient[j]);
          }
          expect_near(actual, expected, kGradTolerance<C>);
        }
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

}  // namespace
}  // namespace wavroute::kernels
