#include "base/philox.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

namespace wavroute {
namespace {

// The known answers of philox4x32, 10 rounds, that Random123 publishes (tests/kat_vectors).
TEST(Philox, BlockFunctionGivesThePublishedAnswers) {
  using Counter = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The published test values of 64-bit FNV-1a.
TEST(Philox, NameHashGivesThePublishedAnswers) {
  EXPECT_EQ(fnv1a(""), 0xcbf29ce484222325ULL);
  EXPECT_EQ(fnv1a("a"), 0xaf63dc4c8601ec8cULL);
  EXPECT_EQ(fnv1a("foobar"), 0x85944171f73967e8ULL);
}

// The mean of n values has the standard error 1/sqrt(n), the k-th moment sqrt(var(x^k) / n);
// five of them never fail by chance.
TEST(Philox, NormalHasTheMomentsOfTheStandardNormal) {
  const Philox random(7, "test");
  constexpr int kCount = 400000;
  double sum1 = 0, sum2 = 0, sum3 = 0, sum4 = 0, neighbours = 0, previous = 0;
  for (int i = 0; i < kCount; ++i) {
    const double x = random.normal(i);
    sum1 += x;
    sum2 += x * x;
    sum3 += x * x * x;
    sum4 += x * x * x * x;
    neighbours += x * previous;
    previous = x;
  }
  const double unit = 5 / std::sqrt(kCount);
  EXPECT_NEAR(sum1 / kCount, 0, unit);
  EXPECT_NEAR(sum2 / kCount, 1, unit * std::sqrt(2.0));
  EXPECT_NEAR(sum3 / kCount, 0, unit * std::sqrt(15.0));
  EXPECT_NEAR(sum4 / kCount, 3, unit * std::sqrt(96.0));
  EXPECT_NEAR(neighbours / kCount, 0, unit);
}

TEST(Philox, APairIsTwoNeighbours) {
  const Philox random(3, "init", "model.norm.weight");
  for (uint64_t k : {0U, 1U, 77U}) {
    EXPECT_EQ(random.normal_pair(k, 5)[0], random.normal(2 * k, 5));
    EXPECT_EQ(random.normal_pair(k, 5)[1], random.normal(2 * k + 1, 5));
  }
}

TEST(Philox, UniformFillsTheUnitIntervalEvenly) {
  const Philox random(7, "test");
  constexpr int kCount = 100000, kBins = 10;
  std::vector<int> bins(kBins);
  for (int i = 0; i < kCount; ++i) {
    const double x = random.uniform(i, 3);
    ASSERT_GE(x, 0);
    ASSERT_LT(x, 1);
    ++bins[static_cast<int>(x * kBins)];
  }
  for (const int bin : bins) EXPECT_NEAR(bin, kCount / kBins, 5 * std::sqrt(kCount / kBins));
}

TEST(Philox, ValuesDoNotDependOnTheOrderOfCalls) {
  const Philox random(1, "init", "model.norm.weight");
  std::vector<double> forwards, backwards(100);
  for (int i = 0; i < 100; ++i) forwards.push_back(random.normal(i, 5));
  for (int i = 99; i >= 0; --i) {
    (void)random.normal(i, 4);  // another stream in between
    backwards[i] = Philox(1, "init", "model.norm.weight").normal(i, 5);
  }
  EXPECT_EQ(forwards, backwards);
}

// Two independent words of 128 bits share 64 of them, with a standard deviation of 5.7.
void expect_unrelated(const Philox& a, uint64_t stream_a, const Philox& b, uint64_t stream_b) {
  constexpr int kCount = 1000;
  int64_t equal_bits = 0;
  for (int i = 0; i < kCount; ++i) {
    const auto left = a.bits(i, stream_a), right = b.bits(i, stream_b);
    for (int word = 0; word < 4; ++word) equal_bits += std::popcount(~(left[word] ^ right[word]));
  }
  EXPECT_NEAR(static_cast<double>(equal_bits) / kCount, 64, 5 * 5.7 / std::sqrt(kCount));
}

TEST(Philox, NeighbouringSeedsAreUnrelated) {
  expect_unrelated(Philox(1, "init", "a"), 0, Philox(2, "init", "a"), 0);
  expect_unrelated(Philox(0, "init", "a"), 0, Philox(1ULL << 32, "init", "a"), 0);
}

TEST(Philox, PurposesNamesAndStreamsAreUnrelated) {
  expect_unrelated(Philox(1, "init"), 0, Philox(1, "order"), 0);
  expect_unrelated(Philox(1, "init", "a"), 0, Philox(1, "init", "b"), 0);
  expect_unrelated(Philox(1, "init", "a"), 0, Philox(1, "init", "a"), 1);
  expect_unrelated(Philox(1, "ab", "c"), 0, Philox(1, "a", "bc"), 0);
}

}  // namespace
}  // namespace wavroute
