#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <thread>

#include "tests/data/bpe_examples.h"
#include "tests/data/scratch.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

using nlohmann::json;
using testing::added_token;
using ::testing::ElementsAre;
using testing::english;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kFffd;
using testing::kMark;
using testing::llama2;
using testing::llama2_tokenizer;
using testing::read;

std::string every_byte() {
  std::string text(256, '\0');
  std::iota(text.begin(), text.end(), '\0');
  return text;
}

TEST(ByteLevelBpe, IdsAreThoseOfTheMerges) {
  const auto tokenizer = read(english());
  EXPECT_EQ(tokenizer->name(), "bpe");
  EXPECT_EQ(tokenizer->vocab_size(), 261);
  // " the" from " t" + he: its merges are of lower ranks than t + he.
  EXPECT_THAT(tokenizer->encode("the the"), ElementsAre(259, 258));
  EXPECT_THAT(tokenizer->encode("that"), ElementsAre('t', 'h', 'a', 't'));
  EXPECT_EQ(tokenizer->token_bytes(258), " the");
}

TEST(ByteLevelBpe, EveryByteComesBackFromTextThatIsNoUtf8) {
  const auto tokenizer = read(english());
  const std::string text = every_byte() + "\xC3(\xE2\x82 the\xF0\x9F";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->replaced_bytes(text), 0U);
}

TEST(ByteLevelBpe, MergesAreStringsOrLists) {
  json lists = english();
  for (auto& merge : lists["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  EXPECT_EQ(read(lists)->hash(), read(english())->hash());
  EXPECT_THAT(read(lists)->encode("the"), ElementsAre(259));
}

TEST(ByteLevelBpe, IgnoreMergesTakesAWordThatIsAToken) {
  json tokenizer = english();
  tokenizer["model"]["vocab"]["then"] = 260;
  EXPECT_THAT(read(tokenizer)->encode("then"), ElementsAre(259, 'n'));
  tokenizer["model"]["ignore_merges"] = true;
  EXPECT_THAT(read(tokenizer)->encode("then"), ElementsAre(260));
}

TEST(ByteLevelBpe, AMissingByteIsNamedWithItsPlace) {
  json tokenizer = english();
  tokenizer["model"]["vocab"].erase("x");
  tokenizer["added_tokens"] = json::array();
  const auto without_x = read(tokenizer);
  EXPECT_THAT(user_error([&] { (void)without_x->encode("the x", "a.txt", 100); }),
              HasSubstr("the byte 0x78, at byte 104 of a.txt"));
}

TEST(ByteLevelBpe, HolesInTheIdsStandForNothing) {
  json tokenizer = english();
  tokenizer["model"]["vocab"]["hole"] = 300;
  const auto with_hole = read(tokenizer);
  EXPECT_EQ(with_hole->vocab_size(), 301);
  EXPECT_EQ(with_hole->token_bytes(290), "");
  EXPECT_EQ(with_hole->decode(std::vector<uint32_t>{'a', 290, 300}), "ahole");
}

TEST(SpecialTokens, AreTextInDataAndTokensInAPrompt) {
  const auto tokenizer = read(english());
  const std::string text = "a<|endoftext|>";
  EXPECT_EQ(tokenizer->encode(text).size(), text.size());
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_THAT(tokenizer->encode_prompt(text), ElementsAre('a', 260));
  EXPECT_TRUE(tokenizer->is_special(260));
  EXPECT_FALSE(tokenizer->is_special('a'));
  EXPECT_EQ(tokenizer->decode(std::vector<uint32_t>{'a', 260, 'b'}), "a<|endoftext|>b");
  EXPECT_EQ(tokenizer->decode(std::vector<uint32_t>{'a', 260, 'b'}, /*skip_special=*/true), "ab");
}

TEST(AddedTokens, ThatAreNotSpecialAreFoundInDataToo) {
  json tokenizer = english();
  tokenizer["added_tokens"].push_back(added_token("<x>", false));
  EXPECT_THAT(read(tokenizer)->encode("a<x>b"), ElementsAre('a', 261, 'b'));
}

TEST(AddedTokens, TheLongestThatBeginsFirstCounts) {
  json tokenizer = english();
  for (const char* content : {"<a", "<ab>", "b>c"}) {
    tokenizer["added_tokens"].push_back(added_token(content, false));
  }
  EXPECT_THAT(read(tokenizer)->encode("<ab>c<ac"), ElementsAre(262, 'c', 261, 'c'));
}

TEST(AddedTokens, TakeSpacesAlongAndStandAlone) {
  json tokenizer = english();
  json token = added_token("<m>", false);
  token["lstrip"] = token["rstrip"] = true;
  tokenizer["added_tokens"].push_back(token);
  token = added_token("ww", false);
  token["single_word"] = true;
  tokenizer["added_tokens"].push_back(token);
  EXPECT_THAT(read(tokenizer)->encode("a \n<m>\xE2\x80\x83 b"), ElementsAre('a', 261, 'b'));
  EXPECT_THAT(read(tokenizer)->encode("ww,wwa\xC3\xA9ww ww"),
              ElementsAre(262, ',', 'w', 'w', 'a', 0xC3, 0xA9, 'w', 'w', ' ', 262));
}

TEST(Llama2Bpe, PutsASpaceBeforeTheTextAndTakesItAwayAgain) {
  const auto tokenizer = read(llama2());
  EXPECT_THAT(tokenizer->encode("a ab"), ElementsAre(261, 261, 260));
  EXPECT_EQ(tokenizer->decode(std::vector<uint32_t>{261, 261, 260}), "a ab");
  for (const std::string text : {"a", " a", "  ab  ", "\n", ""}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  EXPECT_THAT(tokenizer->encode(""), IsEmpty());
}

TEST(Llama2Bpe, APromptBeginsAsThePostProcessorSays) {
  const auto tokenizer = read(llama2());
  EXPECT_THAT(tokenizer->encode_prompt("a"), ElementsAre(1, 261));
  // Behind a special token the text begins again.
  EXPECT_THAT(tokenizer->encode_prompt("a<s>a"), ElementsAre(1, 261, 1, 261));
}

TEST(Llama2Bpe, UnknownCharactersBecomeBytes) {
  const auto tokenizer = read(llama2());
  EXPECT_THAT(tokenizer->encode("a\xC3\xA9"), ElementsAre(261, 2 + 0xC3, 2 + 0xA9));
  EXPECT_EQ(tokenizer->token_bytes(2 + 0xC3), "\xC3");
}

TEST(Llama2Bpe, WhatIsNoUtf8BecomesAReplacementAndIsCounted) {
  const auto tokenizer = read(llama2());
  const std::string text = "a\xFFz\xE2\x82";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), "a" + kFffd + "z" + kFffd);
  EXPECT_EQ(tokenizer->replaced_bytes(text), 3U);
}

TEST(Llama2Bpe, AMergeAcrossWordsIsMade) {
  // With a token that holds a space inside, the text is one word.
  const auto tokenizer = read(llama2_tokenizer({kMark, "a", "b", "a" + kMark}, {"a " + kMark}));
  EXPECT_THAT(tokenizer->encode("a b"), ElementsAre(258, 261, 260));
  EXPECT_EQ(tokenizer->cut("a b a b", 5), 0U);
}

TEST(StreamDecoder, LeavesOutTheSpaceThatATokenizerPutsBeforeATextOnce) {
  const auto tokenizer = read(llama2());
  StreamDecoder whole(tokenizer), rest(tokenizer, /*continues=*/true);
  EXPECT_EQ(whole.feed(261), "a");
  EXPECT_EQ(whole.feed(261), " a");
  EXPECT_EQ(rest.feed(261), " a");
  EXPECT_EQ(whole.feed(2 + 0xC3), "");
  EXPECT_EQ(whole.feed(2 + 0xA9), "\xC3\xA9");
}

// The ids of a text that is encoded in pieces, cut where the tokenizer says at most `most` bytes
// in.
std::vector<uint32_t> encode_in_pieces(const Tokenizer& tokenizer, std::string_view text,
                                       size_t most) {
  std::vector<uint32_t> ids;
  for (size_t begin = 0; begin < text.size();) {
    const std::string_view rest = text.substr(begin);
    size_t bytes = 0;
    for (size_t at = most; bytes == 0; ++at) bytes = tokenizer.cut(rest, at);
    const auto piece = begin == 0 ? tokenizer.encode(rest.substr(0, bytes))
                                  : tokenizer.encode_rest(rest.substr(0, bytes));
    ids.insert(ids.end(), piece.begin(), piece.end());
    begin += bytes;
  }
  return ids;
}

TEST(Cut, PiecesGiveTheIdsOfTheWhole) {
  const std::string text =
      "the the  the\n\n the\nthe 12 the;\nthe' the's \xC3\xA9t\xC3\xA9\n\xE4\xB8\xAD\n\xE6\x96\x87 "
      "the  ";
  for (const auto& tokenizer : {read(english()), read(llama2())}) {
    const auto whole = tokenizer->encode(text);
    size_t pieces = 0;
    for (size_t most = 1; most < text.size(); ++most) {
      EXPECT_EQ(encode_in_pieces(*tokenizer, text, most), whole) << most;
      if (tokenizer->cut(text, most) > 0) ++pieces;
    }
    EXPECT_GT(pieces, text.size() / 2);
  }
}

TEST(Cut, BytesAndCharactersAreCutBetweenCharacters) {
  EXPECT_EQ(make_bytes_tokenizer()->cut("\xC3\xA9\xC3\xA9", 3), 2U);
  EXPECT_EQ(make_bytes_tokenizer()->cut("ab", 9), 2U);
}

TEST(BpeTokenizer, ThreadsMayShareOne) {
  const auto tokenizer = read(english());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += " the word" + std::to_string(i);
  const auto expected = tokenizer->encode(text);
  std::vector<int> equal(4);
  std::vector<std::thread> threads;
  threads.reserve(equal.size());
  for (int& mine : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) mine += tokenizer->encode(text) == expected ? 1 : 0;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(equal, ElementsAre(20, 20, 20, 20));
}

TEST(BpeHash, CoversMergesAddedTokensAndRulesAndNothingElse) {
  const std::string hash = read(english())->hash();
  const auto changed = [&](const std::function<void(json&)>& change) {
    json tokenizer = english();
    change(tokenizer);
    return read(tokenizer)->hash() != hash;
  };
  EXPECT_TRUE(
      changed([](json& t) { std::swap(t["model"]["merges"][0], t["model"]["merges"][3]); }));
  EXPECT_TRUE(changed([](json& t) { t["model"]["merges"].erase(3); }));
  EXPECT_TRUE(changed([](json& t) { t["model"]["ignore_merges"] = true; }));
  EXPECT_TRUE(changed([](json& t) { t["pre_tokenizer"]["use_regex"] = false; }));
  EXPECT_TRUE(changed([](json& t) { t["normalizer"] = {{"type", "NFC"}}; }));
  EXPECT_TRUE(changed([](json& t) { t["added_tokens"][0]["special"] = false; }));
  EXPECT_TRUE(
      changed([](json& t) { std::swap(t["model"]["vocab"]["a"], t["model"]["vocab"]["b"]); }));
  EXPECT_FALSE(changed([](json& t) { t["model"]["dropout"] = nullptr; }));
  EXPECT_FALSE(changed([](json& t) { t["truncation"] = {{"max_length", 512}}; }));
  EXPECT_FALSE(changed([](json& t) {
    t["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", true}};
  }));
}

TEST(BpeJson, ComesBackAsTheSameTokenizer) {
  for (const json& tokenizer : {english(), llama2()}) {
    const auto first = read(tokenizer);
    EXPECT_EQ(first->to_json(), tokenizer.dump());
    const auto again = tokenizer_from_json(first->to_json());
    EXPECT_EQ(again->hash(), first->hash());
    EXPECT_EQ(again->end_token(), first->end_token());
  }
}

TEST(EndToken, HasAKnownNameOrIsSaidAndThenStaysSaid) {
  json tokenizer = english();
  tokenizer["added_tokens"].push_back(added_token("<|im_end|>"));
  EXPECT_EQ(read(tokenizer)->end_token(), 260U);
  const auto said = tokenizer_from_json(tokenizer.dump(), "t.json", "<|im_end|>");
  EXPECT_EQ(said->end_token(), 261U);
  EXPECT_EQ(said->hash(), read(tokenizer)->hash());
  EXPECT_EQ(tokenizer_from_json(said->to_json())->end_token(), 261U);
  EXPECT_THAT(user_error([&] { (void)tokenizer_from_json(tokenizer.dump(), "t.json", "<no>"); }),
              HasSubstr("<no>"));
}

TEST(EndToken, OfTheVocabularyAloneBecomesASpecialToken) {
  json tokenizer = english();
  tokenizer["added_tokens"] = json::array();
  EXPECT_EQ(read(tokenizer)->end_token(), std::nullopt);
  const auto said = tokenizer_from_json(tokenizer.dump(), "t.json", "the");
  EXPECT_EQ(said->end_token(), 259U);
  EXPECT_TRUE(said->is_special(259));
  EXPECT_EQ(tokenizer_from_json(said->to_json())->hash(), said->hash());
}

TEST(EndToken, BytesAndCharactersHaveNone) {
  EXPECT_EQ(make_bytes_tokenizer()->end_token(), std::nullopt);
  EXPECT_EQ(make_chars_tokenizer("ab")->end_token(), std::nullopt);
}

TEST(AddedTokens, ManySpacesThatManyTokensTakeAlong) {
  json tokenizer = english();
  json token = added_token("  ", false);
  token["lstrip"] = token["rstrip"] = true;
  tokenizer["added_tokens"].push_back(token);
  EXPECT_EQ(read(tokenizer)->encode(std::string(1 << 20, ' ')).size(), size_t{1} << 19);
}

}  // namespace
}  // namespace wavroute
