// The text of tokenizer.json; tests/python/test_import.py has the library `tokenizers` read it.
#include "data/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using Json = nlohmann::json;

Vocabulary byte_level() {
  Vocabulary v;
  for (const char* text : {"<|end|>", "a", "b", "ab", "abab"}) v.pieces.push_back({text});
  v.pieces[0].type = PieceType::kControl;
  v.merges = {"a b", "ab ab"};
  v.pre_tokenizer = "gpt-2";
  return v;
}

TEST(TokenizerText, OfABytesVocabularyHasItsMergesAndTokens) {
  const Json json = Json::parse(byte_level_json(byte_level(), "m.gguf"));
  EXPECT_EQ(json["model"]["merges"], Json::parse(R"([["a","b"],["ab","ab"]])"));
  EXPECT_EQ(json["model"]["vocab"]["abab"], 4);
  EXPECT_EQ(json["added_tokens"].size(), 1U);
  EXPECT_EQ(json["added_tokens"][0]["content"], "<|end|>");
  EXPECT_TRUE(json["post_processor"].is_null());
}

TEST(TokenizerText, RefusesWhatIsNoVocabulary) {
  const auto refusal = [](const Vocabulary& v) {
    return message_of<UserError>([&] { (void)byte_level_json(v, "m.gguf"); });
  };
  Vocabulary v = byte_level();
  v.pre_tokenizer = "tekken";
  EXPECT_THAT(refusal(v), HasSubstr("tekken"));
  for (const char* merge : {"a", "", "a c", "b a", "a b c", " a"}) {
    v = byte_level();
    v.merges.emplace_back(merge);
    EXPECT_THAT(refusal(v), HasSubstr("merges of two entries")) << merge;
  }
  v = byte_level();
  v.pieces.push_back({"ab"});
  EXPECT_THAT(refusal(v), HasSubstr("twice"));
  v = byte_level();
  v.pieces.push_back({"\xc3"});
  EXPECT_THAT(refusal(v), HasSubstr("id 5"));
}

TEST(TokenizerText, RanksTheWaysToMakeAPieceByItsScore) {
  Vocabulary v;
  v.pieces = {{"<unk>", 0, PieceType::kUnknown},
              {"<s>", 0, PieceType::kControl},
              {"<0x41>", 0, PieceType::kByte},
              {"a", -5},
              {"b", -6},
              {"c", -7},
              {"bc", -2},
              {"ab", -1},
              {"abc", -3}};
  v.bos = 1;
  const Json json = Json::parse(sentencepiece_json(v, "m.gguf"));
  EXPECT_EQ(json["model"]["merges"], Json::parse(R"([["a","b"],["b","c"],["ab","c"],["a","bc"]])"));
  EXPECT_EQ(json["model"]["unk_token"], "<unk>");
  EXPECT_EQ(json["model"]["byte_fallback"], true);
  EXPECT_EQ(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_EQ(json["pre_tokenizer"]["prepend_scheme"], "first");
}

// Every way to cut a run of one letter is a merge: as many as the square of the longest run.
TEST(TokenizerText, RefusesPiecesThatJoinInTooManyWays) {
  Vocabulary v;
  for (const char letter : {'a', 'b', 'c', 'd'}) {
    for (size_t length = 1; length <= 1024; ++length) {
      v.pieces.push_back({std::string(length, letter)});
    }
  }
  EXPECT_THAT(message_of<UserError>([&] { (void)sentencepiece_json(v, "m.gguf"); }),
              HasSubstr("at most 2000000 ways"));
}

}  // namespace
}  // namespace wavroute
