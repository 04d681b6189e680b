#include "report/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

namespace wavroute {
namespace {

TEST(Statistics, MeanAndDeviationOfSmallNumbersAreTheArithmeticOnes) {
  const std::vector<double> values = {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0};
  EXPECT_DOUBLE_EQ(mean(values), 5.0);
  EXPECT_DOUBLE_EQ(sample_standard_deviation(values), std::sqrt(32.0 / 7.0));
}

TEST(Statistics, NothingAndOneValueHaveNoSpread) {
  EXPECT_TRUE(std::isnan(mean({})));
  EXPECT_TRUE(std::isnan(sample_standard_deviation(std::vector<double>{1.0})));
}

TEST(Statistics, DeviationIgnoresALargeOffset) {
  const std::vector<double> values = {1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0};
  EXPECT_DOUBLE_EQ(sample_standard_deviation(values), 1.0);
}

// Two-sided 95 % points as printed in any table of Student's t.
TEST(Statistics, StudentQuantilesAgreeWithThePrintedTable) {
  const std::vector<std::pair<double, double>> table = {
      {1, 12.706}, {2, 4.303},  {3, 3.182},  {4, 2.776},  {5, 2.571},   {9, 2.262},
      {10, 2.228}, {20, 2.086}, {29, 2.045}, {30, 2.042}, {120, 1.980}, {1e7, 1.960}};
  for (const auto& [degrees, expected] : table) {
    EXPECT_NEAR(student_t_quantile(0.975, degrees), expected, 5e-4) << degrees;
  }
}

// For 1 and 2 degrees of freedom the quantile has a closed form.
TEST(Statistics, StudentQuantilesAgreeWithTheClosedForms) {
  for (const double p : {0.001, 0.1, 0.5, 0.75, 0.95, 0.975, 0.9999}) {
    const double cauchy = std::tan(std::numbers::pi * (p - 0.5));
    const double two = (2 * p - 1) / std::sqrt(2 * p * (1 - p));
    EXPECT_NEAR(student_t_quantile(p, 1), cauchy, 1e-9 * std::abs(cauchy) + 1e-12) << p;
    EXPECT_NEAR(student_t_quantile(p, 2), two, 1e-9 * std::abs(two) + 1e-12) << p;
  }
}

TEST(Statistics, QuantileInvertsTheProbabilityForEveryDegree) {
  for (int degrees = 1; degrees <= 400; degrees += degrees < 20 ? 1 : 19) {
    const double t = student_t_quantile(0.975, degrees);
    EXPECT_NEAR(student_t_probability(t, degrees), 0.975, 1e-13) << degrees;
    EXPECT_NEAR(student_t_probability(-t, degrees), 0.025, 1e-13) << degrees;
  }
}

// I_x(a, b) of whole a, b is a binomial sum; I_x(1, b) = 1 - (1 - x)^b.
TEST(Statistics, IncompleteBetaAgreesWithItsPolynomials) {
  for (const double x : {0.01, 0.3, 0.5, 0.9, 0.999}) {
    EXPECT_NEAR(incomplete_beta(1, 5, x), 1 - std::pow(1 - x, 5), 1e-14);
    EXPECT_NEAR(incomplete_beta(2, 2, x), x * x * (3 - 2 * x), 1e-14);
  }
  EXPECT_EQ(incomplete_beta(2, 3, 0.0), 0.0);
  EXPECT_EQ(incomplete_beta(2, 3, 1.0), 1.0);
}

TEST(Statistics, PairedDifferenceIsStudentsIntervalOverThePairs) {
  // Differences -1, -2, -3: mean -2, deviation 1, half width 4.303 / sqrt(3).
  const std::vector<double> a = {9.0, 18.0, 27.0}, b = {10.0, 20.0, 30.0};
  const auto result = paired_difference(a, b);
  EXPECT_DOUBLE_EQ(result.mean, -2.0);
  ASSERT_TRUE(result.half_width.has_value());
  EXPECT_NEAR(*result.half_width, 4.302653 / std::sqrt(3.0), 1e-6);
  EXPECT_EQ(result.n, 3U);
  EXPECT_FALSE(result.excludes_zero());  // 2.484 > 2
}

TEST(Statistics, OneSeedHasADifferenceButNoInterval) {
  const auto result = paired_difference(std::vector<double>{1.0}, std::vector<double>{3.0});
  EXPECT_DOUBLE_EQ(result.mean, -2.0);
  EXPECT_FALSE(result.half_width.has_value());
  EXPECT_FALSE(result.excludes_zero());
}

TEST(Statistics, AnIntervalBesideZeroExcludesIt) {
  const auto result =
      paired_difference(std::vector<double>{1.0, 1.1, 1.0}, std::vector<double>{2.0, 2.0, 2.1});
  EXPECT_TRUE(result.excludes_zero());
}

TEST(Statistics, PairsOfUnequalLengthAreRefused) {
  EXPECT_THROW((void)paired_difference(std::vector<double>{1.0}, {}), std::invalid_argument);
  EXPECT_THROW((void)paired_difference({}, {}), std::invalid_argument);
}

// scipy 1.17: 2 * stats.t.sf(t, degrees).
TEST(Statistics, TwoSidedTailsAgreeWithScipysToTheLastDigits) {
  const struct {
    double t, degrees, p;
  } table[] = {{1, 1, 0.5000000000000001},
               {2.5, 2, 0.12961172022151082},
               {4, 9, 0.0031104283103858543},
               {30, 2, 0.001109262681959659},
               {12, 29, 9.060708333137183e-13}};
  for (const auto& row : table) {
    EXPECT_NEAR(student_t_two_sided(row.t, row.degrees), row.p, 1e-12 * row.p) << row.t;
    EXPECT_NEAR(student_t_two_sided(-row.t, row.degrees), row.p, 1e-12 * row.p) << row.t;
  }
}

// scipy 1.17: stats.ttest_rel(a, b).pvalue.
TEST(Statistics, ThePValueOfAPairedDifferenceIsThatOfScipysPairedTest) {
  const std::vector<double> a = {2.711, 2.684, 2.702}, b = {2.731, 2.725, 2.718};
  EXPECT_NEAR(*paired_difference(a, b).p, 0.08039623299497561, 1e-12);
  EXPECT_EQ(*paired_difference(a, a).p, 1.0);
  EXPECT_FALSE(paired_difference(std::vector<double>{1.0}, std::vector<double>{2.0}).p);
}

TEST(Statistics, AnIntervalBesideZeroAndAPValueBelowFivePerCentAreOne) {
  const std::vector<double> zero(3, 0.0);
  for (const double shift : {0.01, 0.02, 0.0248, 0.0249, 0.03, 0.3}) {
    const std::vector<double> a = {shift - 0.01, shift, shift + 0.01};
    const auto difference = paired_difference(a, zero);
    EXPECT_EQ(difference.excludes_zero(), *difference.p < 0.05) << shift;
  }
}

// scipy 1.17: stats.t.ppf(0.975, n - 1) * std(x, ddof=1) * sqrt(2 / n).
TEST(Statistics, TheNoiseFloorIsTheIntervalBetweenTwoMeansOfOneConfiguration) {
  EXPECT_NEAR(*noise_floor(std::vector<double>{2.731, 2.725, 2.718}), 0.02285766686416019, 1e-12);
  EXPECT_NEAR(*noise_floor(std::vector<double>{2.0, 2.1, 2.05, 1.98}), 0.12100970478724069, 1e-12);
  EXPECT_FALSE(noise_floor(std::vector<double>{2.0}).has_value());
}

}  // namespace
}  // namespace wavroute
