#include "data/batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "tests/data/scratch.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

std::vector<int64_t> epoch_order(int64_t count, uint64_t seed, int64_t epoch) {
  const Permutation permutation(count, seed);
  std::vector<int64_t> order;
  for (int64_t place = 0; place < count; ++place) order.push_back(permutation.at(place, epoch));
  return order;
}

TokenView counting_tokens(int64_t count) {
  std::vector<uint32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return tokens_in_memory(ids, count, "numbers");
}

TEST(Permutation, IsABijectionForEveryCountAndEpoch) {
  for (const int64_t count : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 255, 256, 257, 1000}) {
    for (int64_t epoch = 0; epoch < 5; ++epoch) {
      const auto order = epoch_order(count, 1, epoch);
      const std::set<int64_t> places(order.begin(), order.end());
      EXPECT_EQ(std::ssize(places), count);
      EXPECT_EQ(*places.begin(), 0);
      EXPECT_EQ(*places.rbegin(), count - 1);
    }
  }
}

TEST(Permutation, DependsOnSeedAndEpoch) {
  EXPECT_EQ(epoch_order(1000, 1, 0), epoch_order(1000, 1, 0));
  EXPECT_NE(epoch_order(1000, 1, 0), epoch_order(1000, 2, 0));
  EXPECT_NE(epoch_order(1000, 1, 0), epoch_order(1000, 1, 1));
}

// A random permutation of n has one fixed point and n/2 ascents on average (variance 1, n/12).
TEST(Permutation, LooksRandom) {
  constexpr int64_t kCount = 1000, kEpochs = 100;
  double fixed = 0, ascents = 0;
  for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    const auto order = epoch_order(kCount, 3, epoch);
    for (int64_t i = 0; i < kCount; ++i) fixed += order[i] == i;
    for (int64_t i = 1; i < kCount; ++i) ascents += order[i] > order[i - 1];
  }
  EXPECT_NEAR(fixed / kEpochs, 1, 5 / std::sqrt(kEpochs));
  EXPECT_NEAR(ascents / kEpochs, (kCount - 1) / 2.0, 5 * std::sqrt(kCount / 12.0 / kEpochs));
}

TEST(Permutation, HoldsForCountsBeyond32Bits) {
  const int64_t count = (int64_t{1} << 40) + 12345;
  const Permutation permutation(count, 1);
  std::set<int64_t> seen;
  for (int64_t place = 0; place < 2000; ++place) {
    const int64_t at = permutation.at(place, 0);
    EXPECT_GE(at, 0);
    EXPECT_LT(at, count);
    seen.insert(at);
  }
  EXPECT_EQ(seen.size(), 2000U);
}

TEST(TrainingBatches, EveryWindowComesOncePerEpoch) {
  constexpr int64_t kContext = 3, kBatch = 4;
  const TrainingBatches batches(counting_tokens(4 * 37 + 3), kContext, kBatch, 1);
  ASSERT_EQ(batches.count(), 37);
  std::map<int64_t, int> times;
  for (int64_t step = 0; step < 37; ++step) {  // four epochs: 37 steps of 4 windows
    for (int64_t row = 0; row < kBatch; ++row) ++times[batches.window(step, row)];
  }
  ASSERT_EQ(times.size(), 37U);
  for (const auto& [window, count] : times) EXPECT_EQ(count, 4) << window;
  std::set<int64_t> first_epoch;  // 9 steps are 36 windows, none of them twice
  for (int64_t step = 0; step < 9; ++step) {
    for (int64_t row = 0; row < kBatch; ++row) first_epoch.insert(batches.window(step, row));
  }
  EXPECT_EQ(first_epoch.size(), 36U);
}

TEST(TrainingBatches, TargetsAreTheInputsOneTokenAhead) {
  constexpr int64_t kContext = 5, kBatch = 3;
  const TrainingBatches batches(counting_tokens(100), kContext, kBatch, 1);
  std::vector<int64_t> inputs(kBatch * kContext), targets(kBatch * kContext);
  batches.fill(7, inputs, targets);
  for (int64_t row = 0; row < kBatch; ++row) {
    for (int64_t t = 0; t < kContext; ++t) {  // the tokens count up: token i is i
      EXPECT_EQ(inputs[row * kContext + t], batches.window(7, row) * (kContext + 1) + t);
      EXPECT_EQ(targets[row * kContext + t], inputs[row * kContext + t] + 1);
    }
  }
}

TEST(TrainingBatches, SeekingEqualsWalking) {
  const TokenView tokens = counting_tokens(500);
  const TrainingBatches walked(tokens, 4, 2, 9);
  std::vector<int64_t> inputs(8), targets(8), sought_inputs(8), sought_targets(8);
  for (int64_t step = 0; step <= 321; ++step) walked.fill(step, inputs, targets);
  TrainingBatches(tokens, 4, 2, 9).fill(321, sought_inputs, sought_targets);
  EXPECT_EQ(inputs, sought_inputs);
  EXPECT_EQ(targets, sought_targets);
}

// Steps of one window and of three walk the same sequence of windows.
TEST(TrainingBatches, TheSequenceOfWindowsDoesNotDependOnTheBatch) {
  const TokenView tokens = counting_tokens(500);
  const TrainingBatches single(tokens, 4, 1, 1), triple(tokens, 4, 3, 1);
  for (int64_t i = 0; i < 300; ++i) EXPECT_EQ(single.window(i, 0), triple.window(i / 3, i % 3));
}

TEST(TrainingBatches, ATextShorterThanOneSequenceIsAnErrorWithBothNumbers) {
  EXPECT_THAT(user_error([] { TrainingBatches(counting_tokens(8), 8, 1, 1); }),
              HasSubstr("at least 9 tokens (model.context + 1), given 8, in numbers"));
  EXPECT_EQ(TrainingBatches(counting_tokens(9), 8, 1, 1).count(), 1);
}

// What an evaluation scores: how often each token is a target, and the token before it.
std::map<int64_t, int> scored(const EvalWindows& windows, int64_t context, int64_t rows) {
  std::map<int64_t, int> times;
  for (int64_t begin = 0; begin < windows.count(); begin += rows) {
    const int64_t end = std::min(begin + rows, windows.count());
    std::vector<int64_t> inputs((end - begin) * context), targets(inputs.size());
    windows.fill(begin, end, inputs, targets);
    for (size_t i = 0; i < targets.size(); ++i) {
      if (targets[i] == EvalWindows::kIgnored) {
        EXPECT_EQ(inputs[i], 0);
        continue;
      }
      EXPECT_EQ(inputs[i], targets[i] - 1);
      EXPECT_EQ(inputs[i] % context, static_cast<int64_t>(i) % context);  // stride T
      ++times[targets[i]];
    }
  }
  return times;
}

TEST(EvalWindows, EveryTokenButTheFirstIsScoredOnce) {
  constexpr int64_t kContext = 8;
  for (const int64_t count : {9, 16, 17, 18, 100}) {
    const EvalWindows windows(counting_tokens(count), kContext, 0);
    for (const int64_t rows : {1, 3}) {
      const auto times = scored(windows, kContext, rows);
      EXPECT_EQ(std::ssize(times), count - 1);
      EXPECT_EQ(times.begin()->first, 1);
      for (const auto& [token, number] : times) EXPECT_EQ(number, 1) << token;
    }
    EXPECT_EQ(windows.scored_tokens(), count - 1);
  }
}

TEST(EvalWindows, EvalTokensCountFromTheStart) {
  const EvalWindows windows(counting_tokens(100), 8, 13);
  const auto times = scored(windows, 8, 2);
  EXPECT_EQ(times.size(), 13U);
  EXPECT_EQ(times.rbegin()->first, 13);
  EXPECT_EQ(windows.count(), 2);
  EXPECT_EQ(EvalWindows(counting_tokens(100), 8, 1000).scored_tokens(), 99);
}

TEST(EvalWindows, ScoredBytesAreThoseOfTheScoredCharacters) {
  const std::string text =
      "\xE2\x82\xAC"
      "a\xC3\xA9"
      "b\xF0\x9F\x98\x80";  // 3 1 2 1 4 bytes
  const auto chars = make_chars_tokenizer(text);
  const TokenView tokens = tokens_in_memory(chars->encode(text), chars->vocab_size(), "text");
  EXPECT_EQ(EvalWindows(tokens, 2, 0).scored_bytes(*chars), 1 + 2 + 1 + 4);
  EXPECT_EQ(EvalWindows(tokens, 2, 2).scored_bytes(*chars), 1 + 2);
}

TEST(EvalWindows, ATextShorterThanOneSequenceIsOneWindow) {
  for (const int64_t count : {2, 5, 8}) {
    const EvalWindows windows(counting_tokens(count), 8, 0);
    EXPECT_EQ(windows.count(), 1);
    EXPECT_EQ(windows.scored_tokens(), count - 1);
    EXPECT_EQ(std::ssize(scored(windows, 8, 1)), count - 1);
  }
}

TEST(EvalWindows, ATextWithoutATokenToScoreIsAnError) {
  EXPECT_THAT(user_error([] { EvalWindows(counting_tokens(1), 8, 0); }), HasSubstr("given 1"));
  EXPECT_THAT(user_error([] { EvalWindows(TokenView(), 8, 0); }), HasSubstr("given 0"));
}

}  // namespace
}  // namespace wavroute
