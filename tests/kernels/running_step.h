// A write of the running block and the reader after it against the equations of docs/method.md in
// double precision: what tests of the forward and of the backward share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "tests/kernels/route_reference.h"

namespace wavroute::kernels::running {

// The sign of part k in form f (route.h).
inline double sign_of(int form, int part) {
  return form > 0 && (part >> (form - 1) & 1) != 0 ? -1 : 1;
}

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
    for (int k = 0; k < parts; ++k) a.parts.rows[k] = {before[k].data(), d};
    if (parts > 0) {
      a.write = {{u.data(), d}, parts - 1, {before[parts - 1].data(), d}, {after.data(), d}};
    }
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
    a.mixed = {mixed.data(), d};
    a.norm_eps = static_cast<float>(kNormEps);
    a.matching_eps = static_cast<float>(kMatchingEps);
    a.lse = lse.data();
    a.gain = gain.data();
    a.h = {h.data(), d};
    a.x = {x.data(), d};
    a.inverse_rms = inverse_rms.data();
    return a;
  }
  // The forms of token t that the call with arguments `a` should see.
  [[nodiscard]] std::vector<Row> forms(const WriteRead<C>& a, int64_t t) const {
    std::vector<Row> result(static_cast<size_t>(form_count(parts)), Row(static_cast<size_t>(d)));
    for (int k = 0; k < parts; ++k) {
      const bool written = a.write.u && a.write.part == k;
      const bool empty = written ? !a.write.in : !a.parts.rows[k];
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
  if (a.write.u) {
    Row part(static_cast<size_t>(d));
    if (a.write.in) part = row_of(step.before[a.write.part], t, d);
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
  if (a.h) expect_near(token(step.h), expected.h, kTolerance<C>, 1);
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

}  // namespace wavroute::kernels::running
