// Scaled frequencies, by arithmetic; tests/python/test_hf_config.py compares them with
// transformers.
#include "config/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "support.h"

namespace wavroute {
namespace {

using ::testing::DoubleEq;
using ::testing::HasSubstr;
using ::testing::Pointwise;

constexpr double kTheta = 10000.0;

std::vector<double> plain(int64_t width) {
  std::vector<double> f;
  for (int64_t i = 0; i < width / 2; ++i) {
    f.push_back(std::pow(kTheta, -2.0 * static_cast<double>(i) / static_cast<double>(width)));
  }
  return f;
}

std::vector<double> scaled(const RopeScaling& scaling, int64_t width = 64) {
  std::vector<double> f = plain(width);
  scale_frequencies(f, kTheta, scaling);
  return f;
}

RopeScaling of_type(RopeType type) {
  RopeScaling s;
  s.rope_type = type;
  s.factor = 8;
  s.original_max_position_embeddings = 1024;
  return s;
}

TEST(RopeScaling, DefaultLeavesEveryFrequency) {
  RopeScaling s = of_type(RopeType::kDefault);
  EXPECT_EQ(scaled(s), plain(64));
  EXPECT_EQ(attention_factor(s), 1.0);
}

TEST(RopeScaling, LinearDividesEveryFrequency) {
  const auto f = scaled(of_type(RopeType::kLinear)), whole = plain(64);
  for (size_t i = 0; i < f.size(); ++i) EXPECT_EQ(f[i], whole[i] / 8);
}

TEST(RopeScaling, Llama3DividesLongWavesAndLeavesShortOnes) {
  const auto f = scaled(of_type(RopeType::kLlama3)), whole = plain(64);
  int between = 0;
  for (size_t i = 0; i < f.size(); ++i) {
    const double wave = 2 * std::numbers::pi / whole[i];
    if (wave < 1024.0 / 4) {
      EXPECT_EQ(f[i], whole[i]);
    } else if (wave > 1024.0) {
      EXPECT_EQ(f[i], whole[i] / 8);
    } else {
      ++between;
      EXPECT_LT(f[i], whole[i]);
      EXPECT_GT(f[i], whole[i] / 8);
    }
  }
  EXPECT_GT(between, 0);
}

TEST(RopeScaling, YarnRunsFromTheFrequencyToItsPart) {
  const auto f = scaled(of_type(RopeType::kYarn)), whole = plain(64);
  EXPECT_EQ(f.front(), whole.front());
  EXPECT_DOUBLE_EQ(f.back(), whole.back() / 8);
  for (size_t i = 1; i < f.size(); ++i) EXPECT_LE(f[i] / whole[i], f[i - 1] / whole[i - 1] + 1e-15);
  EXPECT_DOUBLE_EQ(attention_factor(of_type(RopeType::kYarn)), 0.1 * std::log(8.0) + 1);
}

TEST(RopeScaling, ConstantsOutsideTheirMeaningAreNamed) {
  EXPECT_FALSE(find_rope_fault(of_type(RopeType::kYarn)));
  const auto fault = [](auto change, RopeType type = RopeType::kYarn) {
    RopeScaling s = of_type(type);
    change(s);
    const auto found = find_rope_fault(s);
    return found ? found->expected : std::string("nothing");
  };
  EXPECT_THAT(fault([](RopeScaling& s) { s.factor = 0.5; }), HasSubstr("factor"));
  EXPECT_THAT(fault([](RopeScaling& s) { s.factor = std::nan(""); }), HasSubstr("factor"));
  EXPECT_THAT(fault([](RopeScaling& s) { s.beta_slow = 0; }), HasSubstr("beta_slow"));
  EXPECT_THAT(fault([](RopeScaling& s) { s.beta_fast = 0.5; }), HasSubstr("beta_fast"));
  EXPECT_THAT(fault([](RopeScaling& s) { s.attention_factor = -1; }),
              HasSubstr("attention_factor"));
  EXPECT_THAT(fault([](RopeScaling& s) { s.high_freq_factor = 1; }, RopeType::kLlama3),
              HasSubstr("high_freq_factor"));
  EXPECT_THAT(fault([](RopeScaling& s) { s.low_freq_factor = 0; }, RopeType::kLlama3),
              HasSubstr("low_freq_factor"));
}

}  // namespace
}  // namespace wavroute
