#include "data/bpe_merges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>

#include "data/word_cache.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using Ids = std::vector<uint32_t>;

Ids merged(const std::vector<BpeMerge>& merges, Ids ids) {
  BpeMerges::Scratch scratch;
  BpeMerges(merges).apply(ids, scratch);
  return ids;
}

TEST(BpeMerges, TheLowestRankComesFirst) {
  // b c before a b: a (b c) stays two tokens.
  EXPECT_THAT(merged({{1, 2, 5}, {0, 1, 4}}, {0, 1, 2}), ElementsAre(0, 5));
  EXPECT_THAT(merged({{0, 1, 4}, {1, 2, 5}}, {0, 1, 2}), ElementsAre(4, 2));
}

TEST(BpeMerges, OfEqualRanksTheLeftmostComesFirst) {
  EXPECT_THAT(merged({{0, 0, 1}}, {0, 0, 0}), ElementsAre(1, 0));
  EXPECT_THAT(merged({{0, 0, 1}}, {0, 0, 0, 0, 0}), ElementsAre(1, 1, 0));
}

TEST(BpeMerges, MergedTokensMergeOn) {
  EXPECT_THAT(merged({{0, 1, 4}, {4, 2, 5}, {5, 5, 6}}, {0, 1, 2, 0, 1, 2}), ElementsAre(6));
}

TEST(BpeMerges, OfAPairThatStandsTwiceTheLastCounts) {
  EXPECT_THAT(merged({{0, 1, 4}, {1, 2, 5}, {0, 1, 4}}, {0, 1, 2}), ElementsAre(0, 5));
}

TEST(BpeMerges, NothingMergesWithoutMerges) {
  EXPECT_THAT(merged({}, {3, 1}), ElementsAre(3, 1));
  EXPECT_THAT(merged({{0, 0, 1}}, {}), ElementsAre());
}

// The definition, word by word: the pair of the lowest rank, leftmost, until there is none.
Ids merged_by_definition(const std::vector<BpeMerge>& merges, Ids ids) {
  std::map<std::pair<uint32_t, uint32_t>, size_t> ranks;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    ranks[{merges[rank].left, merges[rank].right}] = rank;
  }
  for (;;) {
    size_t best = merges.size(), place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      place = i;
    }
    if (best == merges.size()) return ids;
    ids[place] = merges[best].merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

// Short words and long ones are merged by two algorithms.
TEST(BpeMerges, WordsOfEveryLengthFollowTheDefinition) {
  std::mt19937 draw(1);
  std::vector<BpeMerge> merges;
  std::map<std::pair<uint32_t, uint32_t>, bool> seen;
  for (uint32_t next = 4; next < 60; ++next) {  // as training makes them: of what is there
    const auto left = static_cast<uint32_t>(draw() % next);
    const auto right = static_cast<uint32_t>(draw() % next);
    if (!std::exchange(seen[{left, right}], true)) merges.push_back({left, right, next});
  }
  std::ranges::shuffle(merges, draw);
  for (size_t length = 1; length < 200; ++length) {
    Ids word(length);
    for (uint32_t& id : word) id = static_cast<uint32_t>(draw() % 4);
    EXPECT_EQ(merged(merges, word), merged_by_definition(merges, word)) << length;
  }
}

// A million letters without a space: an algorithm that looks at all pairs after each merge does not
// come to an end here.
TEST(BpeMerges, AWordOfAMillionLettersIsMerged) {
  std::vector<BpeMerge> merges;
  for (uint32_t i = 0; i < 10; ++i) merges.push_back({i, i, i + 1});
  EXPECT_EQ(merged(merges, Ids(1 << 20, 0)), Ids(1 << 10, 10));
}

TEST(WordCache, KnowsWhatWasPutInAlsoAfterItWasFull) {
  WordCache cache;
  size_t known = 0;
  for (int round = 0; round < 2; ++round) {
    for (uint32_t i = 0; i < 200000; ++i) {
      const std::string word = "word " + std::to_string(i);
      const Ids ids = {i, i + 1};
      if (const auto found = cache.find(word)) {
        ++known;
        ASSERT_EQ(Ids(found->begin(), found->end()), ids);
      } else {
        cache.insert(word, ids);
        const auto again = cache.find(word);
        ASSERT_TRUE(again);
        ASSERT_EQ(Ids(again->begin(), again->end()), ids);
      }
    }
  }
  EXPECT_LT(known, 200000U);  // it is bounded
  EXPECT_FALSE(cache.find("word"));
}

TEST(WordCache, WordsThatEndInZeroBytesAreNotTheShorterOnes) {
  WordCache cache;
  const std::string_view word = "a", longer("a\0", 2);
  ASSERT_FALSE(cache.find(word));
  cache.insert(word, Ids{1});
  EXPECT_FALSE(cache.find(longer));
}

}  // namespace
}  // namespace wavroute
