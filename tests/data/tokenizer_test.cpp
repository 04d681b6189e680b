#include "wavroute/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "base/utf8.h"
#include "tests/data/scratch.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::string every_byte() {
  std::string text(256, '\0');
  std::iota(text.begin(), text.end(), '\0');
  return text;
}

TEST(BytesTokenizer, IdsAreTheBytesAndEveryByteComesBack) {
  const auto tokenizer = make_bytes_tokenizer();
  const std::string text = every_byte() + "h\xC3\xA9llo";
  const auto ids = tokenizer->encode(text);
  ASSERT_EQ(ids.size(), text.size());
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], static_cast<unsigned char>(text[i]));
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_EQ(tokenizer->vocab_size(), 256);
}

TEST(CharsTokenizer, VocabularyIsTheSortedCodePoints) {
  const auto tokenizer = make_chars_tokenizer(
      "b\xF0\x9F\x98\x80"
      "a\xC3\xA9"
      "ab\n");
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_THAT(tokenizer->encode("\nab\xC3\xA9\xF0\x9F\x98\x80"), ElementsAre(0, 1, 2, 3, 4));
}

TEST(CharsTokenizer, TextComesBack) {
  const std::string text = "na\xC3\xAFve \xE2\x82\xAC\xF0\x9F\x98\x80 text\r\n";
  const auto tokenizer = make_chars_tokenizer(text);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST(CharsTokenizer, TokenBytesAddUpToTheText) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  const auto tokenizer = make_chars_tokenizer(text);
  std::vector<size_t> lengths;
  for (const uint32_t id : tokenizer->encode(text)) {
    lengths.push_back(tokenizer->token_bytes(id).size());
  }
  EXPECT_THAT(lengths, ElementsAre(1, 2, 3, 4));
}

TEST(CharsTokenizer, UnknownCharacterIsNamedWithItsByteOffset) {
  const auto tokenizer = make_chars_tokenizer("ab\xC3\xA9");
  const std::string error = user_error([&] {
    (void)tokenizer->encode(
        "\xC3\xA9"
        "az",
        "x.txt", 1000);
  });
  EXPECT_THAT(error, HasSubstr("U+007A, at byte 1003 of x.txt"));
}

TEST(CharsTokenizer, InvalidUtf8IsNamedWithItsByteOffset) {
  EXPECT_THAT(user_error([] { (void)make_chars_tokenizer("abc\xFF", "x.txt"); }),
              HasSubstr("0xFF, at byte 3 of x.txt"));
  EXPECT_THAT(user_error([] { (void)make_chars_tokenizer("ab\xE2\x82", "x.txt"); }),
              HasSubstr("0xE2, at byte 2 of x.txt"));
}

TEST(CharsTokenizer, EmptyTextHasNoVocabulary) {
  EXPECT_THAT(user_error([] { (void)make_chars_tokenizer("", "x.txt"); }), HasSubstr("x.txt"));
}

TEST(Tokenizer, AnIdBeyondTheVocabularyIsAnError) {
  EXPECT_THAT(user_error([] { (void)make_bytes_tokenizer()->token_bytes(256); }),
              HasSubstr("below 256, given 256"));
  EXPECT_THAT(user_error([] { (void)make_chars_tokenizer("ab")->token_bytes(2); }),
              HasSubstr("below 2, given 2"));
}

TEST(Tokenizer, HashIsThatOfTheVocabulary) {
  const std::string chars = make_chars_tokenizer("abc")->hash();
  EXPECT_EQ(chars, make_chars_tokenizer("cabba")->hash());
  EXPECT_NE(chars, make_chars_tokenizer("abd")->hash());
  EXPECT_NE(chars, make_bytes_tokenizer()->hash());
  EXPECT_NE(make_chars_tokenizer(every_byte().substr(0, 128))->hash(),
            make_bytes_tokenizer()->hash());
  EXPECT_EQ(chars.size(), 64U);
}

TEST(TokenizerJson, ComesBackAsTheSameTokenizer) {
  const std::string text = std::string("\0\"\\\x7F ", 5) + "\xC3\xA9\xE2\x80\xA8\xF0\x9F\x98\x80";
  for (const auto& tokenizer : {make_bytes_tokenizer(), make_chars_tokenizer(text)}) {
    const auto again = tokenizer_from_json(tokenizer->to_json());
    EXPECT_EQ(again->name(), tokenizer->name());
    EXPECT_EQ(again->hash(), tokenizer->hash());
    EXPECT_EQ(again->encode(text), tokenizer->encode(text));
    EXPECT_EQ(again->to_json(), tokenizer->to_json());
  }
}

TEST(TokenizerJson, AnythingElseIsRefusedWithTheFileNamed) {
  const std::string chars = make_chars_tokenizer("ab")->to_json();
  const auto replaced = [&](std::string_view from, std::string_view to) {
    std::string json = chars;
    json.replace(json.find(from), from.size(), to);
    return json;
  };
  const std::vector<std::string> bad = {
      "",
      "{",
      "[]",
      "7",
      "null",
      "{}",
      R"({"model": 3})",
      R"({"model": {"type": "Unigram"}})",
      chars.substr(0, chars.size() / 2),
      replaced("\"a\": 0", "\"a\": 1"),  // two characters with one id
      replaced("\"a\": 0", "\"a\": 2"),  // an id beyond the vocabulary
      replaced("\"a\": 0", "\"a\": -1"),
      replaced("\"a\": 0", "\"a\": 0.5"),
      replaced("\"a\": 0", "\"aa\": 0"),  // not one character
      replaced("\"a\": 0", "\"\": 0"),
      replaced("\"Split\"", "\"Whitespace\""),
      replaced("\"1.0\"", "\"2.0\""),  // a newer form
  };
  for (const std::string& json : bad) {
    EXPECT_THAT(user_error([&] { (void)tokenizer_from_json(json, "t.json"); }), HasSubstr("t.json"))
        << json;
  }
}

// Characters come from a file of ours alone: another's words, or steps, make other tokens.
TEST(TokenizerJson, ACharacterVocabularyOfAnotherFormIsRefused) {
  using nlohmann::json;
  const json ours = json::parse(make_chars_tokenizer("ab")->to_json());
  const json normalizer = {{"type", "Lowercase"}};
  const json token = {{"id", 2}, {"content", "[UNK]"}, {"special", true}};
  const json post = {{"type", "TemplateProcessing"}, {"single", json::array()}};
  const std::vector<std::pair<const char*, json>> changes = {
      {"/normalizer", normalizer},
      {"/added_tokens", json::array({token})},
      {"/post_processor", post},
      {"/decoder", nullptr},
      {"/decoder", {{"type", "WordPiece"}}},
      {"/truncation", {{"max_length", 512}}},
      {"/pre_tokenizer/pattern", {{"Regex", " "}}},
      {"/pre_tokenizer/pattern", {{"String", ""}}},
      {"/pre_tokenizer/behavior", "Removed"},
      {"/pre_tokenizer/invert", true},
      {"/model/unk_token", "[UNK]"},
      {"/model/unk_token", "\xEF\xBF\xBD"},  // of which there is no token
      {"/model/more", 1},
      {"/more", 1}};
  for (const auto& [place, value] : changes) {
    json changed = ours;
    changed[json::json_pointer(place)] = value;
    EXPECT_THAT(user_error([&] { (void)tokenizer_from_json(changed.dump(), "t.json"); }),
                HasSubstr("given the model \"WordLevel\", in t.json"))
        << place << " " << value;
  }
}

TEST(TokenizerJson, TheBytesOfAnotherFormAreABytePairEncoding) {
  using nlohmann::json;
  const json ours = json::parse(make_bytes_tokenizer()->to_json());
  const json end = json::parse(R"({"id": 256, "content": "<|endoftext|>", "single_word": false,
      "lstrip": false, "rstrip": false, "normalized": false, "special": true})");
  json with_end = ours, lower = ours;
  with_end["added_tokens"].push_back(end);
  lower["normalizer"] = {{"type", "Lowercase"}};
  const auto ending = tokenizer_from_json(with_end.dump());
  EXPECT_EQ(ending->name(), "bpe");
  EXPECT_EQ(ending->vocab_size(), 257);
  EXPECT_EQ(ending->end_token(), 256);
  EXPECT_THAT(tokenizer_from_json(lower.dump())->encode("A"), ElementsAre(97));
}

// As they lie in checkpoints. What is missing counts as ours.
TEST(TokenizerJson, EarlierFilesAreStillRead) {
  const auto chars = tokenizer_from_json(R"({"added_tokens": [], "decoder": {"type": "Fuse"},
      "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"a": 0, "b": 1}},
      "normalizer": null, "padding": null, "post_processor": null,
      "pre_tokenizer": {"behavior": "Isolated", "invert": false,
      "pattern": {"Regex": "[\\s\\S]"}, "type": "Split"}, "truncation": null,
      "version": "1.0"})");
  EXPECT_EQ(chars->name(), "chars");
  EXPECT_EQ(chars->hash(), make_chars_tokenizer("ab")->hash());
  const auto bare = tokenizer_from_json(R"({"pre_tokenizer": {"type": "Split"},
      "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}}})");
  EXPECT_EQ(bare->hash(), chars->hash());
}

TEST(TokenizerJson, MergedBytesAreAnotherTokenizer) {
  std::string json = make_bytes_tokenizer()->to_json();
  const std::string none = "\"merges\": []";
  json.replace(json.find(none), none.size(), R"("merges": [["a", "b"]])");
  EXPECT_THAT(user_error([&] { (void)tokenizer_from_json(json, "t.json"); }), HasSubstr("t.json"));
}

std::vector<std::string> stream(std::string_view bytes) {
  StreamDecoder decoder(make_bytes_tokenizer());
  std::vector<std::string> pieces;
  for (const char byte : bytes) pieces.push_back(decoder.feed(static_cast<unsigned char>(byte)));
  pieces.push_back(decoder.finish());
  return pieces;
}

TEST(StreamDecoder, GivesCharactersOutWhenTheyAreComplete) {
  EXPECT_THAT(stream("a\xC3\xA9\xF0\x9F\x98\x80"),
              ElementsAre("a", "", "\xC3\xA9", "", "", "", "\xF0\x9F\x98\x80", ""));
}

TEST(StreamDecoder, ReplacesWhatIsNoCharacter) {
  const std::string replacement(kReplacement);
  EXPECT_THAT(stream("\xFF"
                     "a"),
              ElementsAre(replacement, "a", ""));
  EXPECT_THAT(stream("\xE2\x82"
                     "a"),
              ElementsAre("", "", replacement + "a", ""));                          // cut short
  EXPECT_THAT(stream("\xC3"), ElementsAre("", replacement));                        // at the end
  EXPECT_THAT(stream("\xED\xA0"), ElementsAre("", replacement + replacement, ""));  // surrogate
}

TEST(StreamDecoder, OutputIsUtf8WhateverTheBytes) {
  std::string text;
  StreamDecoder decoder(make_bytes_tokenizer());
  uint32_t state = 1;
  for (int i = 0; i < 20000; ++i) {
    state = state * 1664525 + 1013904223;
    text += decoder.feed(state >> 24);
  }
  text += decoder.finish();
  EXPECT_TRUE(is_utf8(text));
}

// Every code point against the arithmetic of RFC 3629: shortest form, no surrogates.
TEST(Utf8, EncodesAndDecodesEveryCodePoint) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    std::string bytes;
    append_utf8(bytes, code_point);
    const Utf8Step step = utf8_step(bytes, 0);
    if (code_point >= 0xD800 && code_point <= 0xDFFF) {
      ASSERT_EQ(step.state, Utf8State::kInvalid) << code_point;
      continue;
    }
    const size_t length = 1 + (code_point > 0x7F) + (code_point > 0x7FF) + (code_point > 0xFFFF);
    ASSERT_EQ(step.state, Utf8State::kComplete) << code_point;
    ASSERT_EQ(step.code_point, code_point);
    ASSERT_EQ(step.length, length);
    ASSERT_EQ(bytes.size(), length);
  }
}

TEST(Utf8, RefusesOverlongFormsAndValuesAboveTheLast) {
  for (const std::string_view bad :
       {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\x80", "\xE2\x28\xA1"}) {
    EXPECT_EQ(utf8_step(bad, 0).state, Utf8State::kInvalid);
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(Utf8, BoundaryNeverSplitsACharacter) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
  const std::vector<size_t> expected = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
  for (size_t at = 0; at < expected.size(); ++at) EXPECT_EQ(utf8_boundary(text, at), expected[at]);
}

}  // namespace
}  // namespace wavroute
