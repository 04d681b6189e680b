#include "report/spikes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Falls like a loss, with a noise of deviation 0.05.
std::vector<double> usual(std::size_t steps) {
  std::vector<double> losses;
  for (std::size_t i = 0; i < steps; ++i) {
    const double noise = 0.07 * std::sin(1.7 * static_cast<double>(i) * static_cast<double>(i));
    losses.push_back(2.0 + 2.0 * std::exp(-static_cast<double>(i) / 60.0) + noise);
  }
  return losses;
}

TEST(Spikes, AFallingLossHasNone) { EXPECT_THAT(find_spikes(usual(500)), IsEmpty()); }

TEST(Spikes, StepsInARowAreOne) {
  std::vector<double> losses = usual(500);
  losses[200] += 1.0;
  losses[300] += 0.8, losses[301] += 1.5, losses[302] += 0.7;
  EXPECT_THAT(find_spikes(losses), ElementsAre(200, 300));
}

TEST(Spikes, ARiseOfFourDeviationsIsNotYetOne) {
  // Mean 1 and deviation d of +-0.1 in turn over 32 values: d^2 = 32 * 0.01 / 31.
  std::vector<double> losses;
  for (int i = 0; i < 32; ++i) losses.push_back(i % 2 == 0 ? 0.9 : 1.1);
  const double deviation = std::sqrt(32 * 0.01 / 31);
  losses.push_back(1.0 + 3.999 * deviation);
  EXPECT_THAT(find_spikes(losses), IsEmpty());
  losses.back() = 1.0 + 4.001 * deviation;
  EXPECT_THAT(find_spikes(losses), ElementsAre(32));
}

TEST(Spikes, AHigherLevelIsOneSpikeAndThenUsual) {
  std::vector<double> losses = usual(600);
  for (std::size_t i = 250; i < losses.size(); ++i) losses[i] += 1.0;
  losses[500] += 1.0;
  EXPECT_THAT(find_spikes(losses), ElementsAre(250, 500));
}

TEST(Spikes, NotANumberIsASpike) {
  std::vector<double> losses = usual(100);
  losses[50] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(find_spikes(losses), ElementsAre(50));
}

TEST(Spikes, TooFewLossesHaveNone) {
  EXPECT_THAT(find_spikes({}), IsEmpty());
  EXPECT_THAT(find_spikes(std::vector<double>{1.0, 9.0, 1.0}), IsEmpty());
}

TEST(Spikes, LossesThatAreAllTheSameHaveNone) {
  EXPECT_THAT(find_spikes(std::vector<double>(200, 1.5)), IsEmpty());
}

}  // namespace
}  // namespace wavroute
