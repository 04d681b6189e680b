// A write of the running block and the reader after it, forward.
#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "tests/kernels/running_step.h"

namespace wavroute::kernels::running {
namespace {

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
      a.write.in = {step.before[part].data(), step.d};
      run_and_expect(step, a);
    }
  });
}

TEST_P(RouteRunningTest, TheFirstUpdateStartsAPart) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 2, 21);
    WriteRead<C> a = step.arguments();
    a.write.in = {};
    run_and_expect(step, a);
  });
}

TEST_P(RouteRunningTest, APartWithoutUpdatesCountsAsZeros) {
  for_both_types([&]<typename C>() {
    Step<C> step(37, 4, 22);
    WriteRead<C> a = step.arguments();
    a.parts.rows[1] = {};
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
    a.h = {};
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
        a.write.in = {};  // the second part is u, and so is the first: a - b = 0
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
          a.rows[s] = {rows[s].data(), step.d};
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

}  // namespace
}  // namespace wavroute::kernels::running
