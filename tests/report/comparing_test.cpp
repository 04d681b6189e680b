// The numbers that a comparison decides by, against arithmetic and scipy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "report/decision.h"
#include "report/holm.h"
#include "report/loss_curve.h"
#include "report/scaling_fit.h"

namespace wavroute {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(Holm, MultipliesByWhatIsLeftAndNeverFalls) {
  // By hand: sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04 -> 0.06.
  const auto adjusted = holm_adjusted(std::vector<double>{0.04, 0.01, 0.03, 0.02});
  EXPECT_THAT(adjusted, ElementsAre(DoubleNear(0.06, 1e-15), DoubleNear(0.04, 1e-15),
                                    DoubleNear(0.06, 1e-15), DoubleNear(0.06, 1e-15)));
}

TEST(Holm, OneTestStaysAsItIsAndNothingExceedsOne) {
  EXPECT_THAT(holm_adjusted(std::vector<double>{0.03}), ElementsAre(0.03));
  EXPECT_THAT(holm_adjusted(std::vector<double>{0.6, 0.9}), ElementsAre(1.0, 1.0));
  EXPECT_TRUE(holm_adjusted({}).empty());
}

TEST(ScalingFit, FindsTheLawThatThreePointsLieOn) {
  const ScalingFit law{1.5, 0.8, 0.35};
  std::vector<ScalingPoint> points;
  for (const double compute : {0.5, 1.0, 2.0}) points.push_back({compute, law.loss_at(compute)});
  const auto result = fit_scaling(points);
  ASSERT_TRUE(result.fit) << result.why;
  EXPECT_NEAR(result.fit->limit, 1.5, 1e-5);
  EXPECT_NEAR(result.fit->amplitude, 0.8, 1e-5);
  EXPECT_NEAR(result.fit->exponent, 0.35, 1e-5);
  // 1.5 + 0.8 C^-0.35 = 2.2 at C = (0.8 / 0.7)^(1 / 0.35).
  EXPECT_NEAR(*result.fit->compute_for(2.2), std::pow(0.8 / 0.7, 1 / 0.35), 1e-4);
}

TEST(ScalingFit, DoesNotDependOnTheUnitOfCompute) {
  const ScalingFit law{1.5, 0.8, 0.35};
  std::vector<ScalingPoint> points;
  for (const double times : {0.5, 1.0, 2.0}) points.push_back({1e18 * times, law.loss_at(times)});
  const auto result = fit_scaling(points);
  ASSERT_TRUE(result.fit) << result.why;
  EXPECT_NEAR(*result.fit->compute_for(2.2) / 1e18, std::pow(0.8 / 0.7, 1 / 0.35), 1e-4);
}

// scipy 1.17: optimize.curve_fit(lambda c, l, a, x: l + a * c**-x, C, L, bounds=([0, 0, 0.01],
// ...)).
TEST(ScalingFit, OfPointsBesideALawAgreesWithScipysCurveFit) {
  const std::vector<ScalingPoint> points = {
      {0.25, 3.42}, {0.5, 3.01}, {1, 2.742}, {2, 2.548}, {4, 2.431}};
  const auto result = fit_scaling(points);
  ASSERT_TRUE(result.fit) << result.why;
  EXPECT_NEAR(result.fit->limit, 2.17485014, 2e-6);
  EXPECT_NEAR(result.fit->amplitude, 0.56256274, 2e-6);
  EXPECT_NEAR(result.fit->exponent, 0.5729934, 2e-6);
  EXPECT_NEAR(*result.fit->compute_for(2.6), 1.6303067069072588, 1e-5);
}

TEST(ScalingFit, SaysWhyThereIsNone) {
  const std::vector<ScalingPoint> two = {{0.5, 3.0}, {1, 2.5}, {1, 2.6}};
  EXPECT_EQ(fit_scaling(two).why, "a fit needs 3 budgets, given 2");
  const std::vector<ScalingPoint> rising = {{0.5, 2.0}, {1, 2.5}, {2, 2.6}};
  EXPECT_FALSE(fit_scaling(rising).fit);
  EXPECT_FALSE(fit_scaling(rising).why.empty());
}

TEST(ScalingFit, NoComputeGivesTheLossOfItsLimit) {
  const ScalingFit law{1.5, 0.8, 0.35};
  EXPECT_FALSE(law.compute_for(1.5));
  EXPECT_FALSE(law.compute_for(1.0));
}

TEST(LossCurve, ATargetIsReachedOnTheLineBetweenTwoEvaluations) {
  const std::vector<CurvePoint> curve = {{100, 5.0}, {200, 4.0}, {300, 3.0}, {400, 3.5}};
  EXPECT_DOUBLE_EQ(*tokens_to_target(curve, 3.25), 275.0);
  EXPECT_DOUBLE_EQ(*tokens_to_target(curve, 4.0), 200.0);
  EXPECT_DOUBLE_EQ(*tokens_to_target(curve, 9.0), 100.0);
  EXPECT_FALSE(tokens_to_target(curve, 2.9));
  EXPECT_FALSE(tokens_to_target({}, 2.9));
}

TEST(LossCurve, AMeanHasThePointsThatAllRunsHave) {
  const std::vector<std::vector<CurvePoint>> runs = {{{100, 5.0}, {200, 4.0}},
                                                     {{100, 6.0}, {150, 1.0}, {200, 4.5}}};
  const auto mean = mean_curve(runs);
  ASSERT_EQ(mean.size(), 2U);
  EXPECT_DOUBLE_EQ(mean[0].loss, 5.5);
  EXPECT_DOUBLE_EQ(mean[1].tokens, 200);
  EXPECT_DOUBLE_EQ(mean[1].loss, 4.25);
}

TEST(LossCurve, TheLastEvaluationsAreFewerWhereThereAreFewer) {
  const std::vector<CurvePoint> curve = {{100, 5.0}, {200, 4.0}, {300, 3.0}};
  EXPECT_DOUBLE_EQ(*mean_of_last(curve, 2), 3.5);
  EXPECT_DOUBLE_EQ(*mean_of_last(curve, 7), 4.0);
  EXPECT_FALSE(mean_of_last({}, 3));
}

TEST(Decision, CountsThePairsThatTheDeepestOrdersAlike) {
  // Of the three pairs, (1, 2) and (1, 3) are ordered alike, (2, 3) is not.
  const auto accuracy =
      decision_accuracy(std::vector<double>{1.0, 2.0, 3.0}, std::vector<double>{1.0, 3.0, 2.0});
  EXPECT_EQ(accuracy.pairs, 3U);
  EXPECT_EQ(accuracy.agree, 2U);
  EXPECT_DOUBLE_EQ(accuracy.share(), 2.0 / 3.0);
}

}  // namespace
}  // namespace wavroute
