#include "data/bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/data/scratch.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> merges_of(const BpeTrainer& trainer, int64_t vocab_size) {
  std::vector<std::string> merges;
  const json tokenizer = json::parse(trainer.train(vocab_size).json);
  for (const auto& merge : tokenizer["model"]["merges"]) {
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return merges;
}

TEST(BpeTrainer, TheMostFrequentPairIsMergedFirst) {
  BpeTrainer trainer;
  // Pairs: ab 3 times, bc 2 times; then (ab)c 2 times.
  trainer.add("abc\nabc\nab\nd");
  EXPECT_THAT(merges_of(trainer, 260), ElementsAre("a b", "ab c"));
}

TEST(BpeTrainer, OfEquallyFrequentPairsTheLowerIdsComeFirst) {
  BpeTrainer trainer;
  trainer.add("zy\nzy\nab\nab");
  EXPECT_THAT(merges_of(trainer, 258), ElementsAre("a b"));
  EXPECT_THAT(merges_of(trainer, 400), ElementsAre("a b", "z y"));
}

TEST(BpeTrainer, OrderAndPiecesOfTheTextsChangeNothing) {
  BpeTrainer one, other;
  for (const char* text : {"the cat\n", "the hat\n", "that cat\n"}) one.add(text);
  other.add("that cat\nthe hat\nthe cat\n");
  EXPECT_EQ(one.train(270).json, other.train(270).json);
  EXPECT_EQ(one.bytes(), other.bytes());
}

TEST(BpeTrainer, EndsWhereNoPairStandsTwice) {
  BpeTrainer trainer;
  trainer.add("ab cd");
  EXPECT_THAT(merges_of(trainer, 300), IsEmpty());
  EXPECT_EQ(trainer.train(300).vocab_size, 257);
}

TEST(BpeTrainer, ItsTokenizerHasTheVocabularyAndTheEndOfADocument) {
  BpeTrainer trainer;
  trainer.add("hello hello hello \xFF\xFE");
  const auto [text, size] = trainer.train(259);
  EXPECT_EQ(size, 259);
  const auto tokenizer = tokenizer_from_json(text);
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_EQ(tokenizer->end_token(), 0U);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("hello \xFF x")), "hello \xFF x");
}

TEST(BpeTrainer, AVocabularyBelowTheBytesIsRefused) {
  EXPECT_THAT(user_error([] { (void)BpeTrainer().train(256); }), HasSubstr("257"));
}

}  // namespace
}  // namespace wavroute
