#include "data/split_patterns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/utf8.h"
#include "data/unicode_forms.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> words(SplitPattern pattern, std::string_view text) {
  const CharacterReader characters;
  std::vector<std::string> found;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    const char* const after = match_of(pattern)(characters, at, end);
    found.emplace_back(at, after);
    at = after;
  }
  return found;
}

TEST(SplitPatterns, Gpt2KeepsTheSpaceBeforeAWord) {
  EXPECT_THAT(words(SplitPattern::kGpt2, "Hello my friend, 12 days"),
              ElementsAre("Hello", " my", " friend", ",", " 12", " days"));
}

TEST(SplitPatterns, Gpt2LeavesTheLastOfSeveralSpacesToTheWord) {
  EXPECT_THAT(words(SplitPattern::kGpt2, "a   b\n\nc  "),
              ElementsAre("a", "  ", " b", "\n", "\n", "c", "  "));
}

TEST(SplitPatterns, Gpt2KnowsContractionsInLowerCaseAlone) {
  EXPECT_THAT(words(SplitPattern::kGpt2, "it's we'll I'D"),
              ElementsAre("it", "'s", " we", "'ll", " I", "'", "D"));
}

TEST(SplitPatterns, Llama3TakesThreeDigitsAndOneMarkBeforeAWord) {
  EXPECT_THAT(words(SplitPattern::kLlama3, "12345 (a) I'D"),
              ElementsAre("123", "45", " (", "a", ")", " I", "'D"));
}

TEST(SplitPatterns, Llama3EndsARunOfSpacesAtItsLastLineEnd) {
  EXPECT_THAT(words(SplitPattern::kLlama3, "a \n \n  b;\r\n\nc"),
              ElementsAre("a", " \n \n", " ", " b", ";\r\n\n", "c"));
}

TEST(SplitPatterns, TheLongSIsAnSInAnyCase) {
  EXPECT_THAT(words(SplitPattern::kLlama3, "a'\xC5\xBF"), ElementsAre("a", "'\xC5\xBF"));
  EXPECT_THAT(words(SplitPattern::kGpt2, "a'\xC5\xBF"), ElementsAre("a", "'", "\xC5\xBF"));
}

TEST(SplitPatterns, Qwen2TakesDigitsOneByOne) {
  EXPECT_THAT(words(SplitPattern::kQwen2, "x 12"), ElementsAre("x", " ", "1", "2"));
}

TEST(SplitPatterns, BytesThatAreNoTextAreMarks) {
  EXPECT_THAT(words(SplitPattern::kGpt2, "a\xFF\xC3(b"), ElementsAre("a", "\xFF\xC3(", "b"));
}

TEST(SplitPatterns, EveryMatchTakesSomethingAndTheWordsAreTheText) {
  const std::vector<std::string> parts = {" ",       "\n",   "\r",       "\t",
                                          "'",       "s",    "L",        "1",
                                          ".",       "\xFF", "\xC3\xA9", std::string(1, '\0'),
                                          "\xC2\xA0"};
  for (const auto pattern : {SplitPattern::kGpt2, SplitPattern::kLlama3, SplitPattern::kQwen2}) {
    for (size_t number = 0; number < 13 * 13 * 13 * 13; ++number) {
      std::string text;
      for (size_t rest = number, i = 0; i < 4; ++i, rest /= 13) text += parts[rest % 13];
      std::string joined;
      for (const std::string& word : words(pattern, text)) {
        ASSERT_FALSE(word.empty());
        joined += word;
      }
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(SplitPatterns, AreKnownByTheirText) {
  EXPECT_EQ(find_pattern(R"(\w+)"), nullptr);
  EXPECT_EQ(
      find_pattern(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)")
          ->pattern,
      SplitPattern::kGpt2);
}

// The reader of characters against the strict one of the base, on all pairs of bytes and more.
TEST(CharacterReader, AgreesWithStrictUtf8) {
  const CharacterReader characters;
  for (uint32_t number = 0; number < (1U << 24); number += 7) {
    const std::string text = {static_cast<char>(number), static_cast<char>(number >> 8),
                              static_cast<char>(number >> 16), '\xBF'};
    const Utf8Step step = utf8_step(text, 0);
    const Character character = characters.read(text.data(), text.data() + text.size());
    ASSERT_EQ(character.is_valid, step.state == Utf8State::kComplete) << number;
    if (!character.is_valid) continue;
    ASSERT_EQ(character.code_point, step.code_point);
    ASSERT_EQ(character.length, step.length);
  }
}

constexpr NormalForm kNfc = {.is_compatible = false, .is_composed = true};
constexpr NormalForm kNfd = {.is_compatible = false, .is_composed = false};
constexpr NormalForm kNfkc = {.is_compatible = true, .is_composed = true};

TEST(NormalForm, ComposesWhatIsApart) {
  EXPECT_EQ(normal_form("xe\xCC\x81y", kNfc), "x\xC3\xA9y");
  EXPECT_EQ(normal_form("x\xC3\xA9y", kNfd), "xe\xCC\x81y");
  EXPECT_EQ(normal_form("\xE2\x84\xAB", kNfc), "\xC3\x85");  // the angstrom sign
}

TEST(NormalForm, PutsMarksInOrderAndComposesPastOthers) {
  // q with a dot above and below (in that order): the one below comes first, neither composes.
  EXPECT_EQ(normal_form("q\xCC\x87\xCC\xA3", kNfc), "q\xCC\xA3\xCC\x87");
  // a with a dot below and a circumflex is one character in two steps.
  EXPECT_EQ(normal_form("a\xCC\x82\xCC\xA3", kNfc), "\xE1\xBA\xAD");
  // A comma above right is of a higher class than the grave accent, which steps past it.
  EXPECT_EQ(normal_form("a\xCC\x95\xCC\x80", kNfc), "\xC3\xA0\xCC\x95");
}

TEST(NormalForm, HangulIsComputed) {
  const std::string syllable = "\xEA\xB0\x81";  // U+AC01
  const std::string jamo = "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8";
  EXPECT_EQ(normal_form(syllable, kNfd), jamo);
  EXPECT_EQ(normal_form(jamo, kNfc), syllable);
}

TEST(NormalForm, CompatibleFormsAreWrittenOut) {
  EXPECT_EQ(normal_form("\xEF\xAC\x81\xC2\xB2\xEF\xBC\xA1", kNfkc), "fi2A");
  EXPECT_EQ(normal_form("\xEF\xAC\x81", kNfc), "\xEF\xAC\x81");
}

TEST(NormalForm, BytesThatAreNoTextStayAndComposeWithNothing) {
  const std::string text = "a\xFF\xCC\x81 \xE2\x82";
  EXPECT_EQ(normal_form(text, kNfc), text);
}

TEST(Lowercase, TakesCharacterByCharacter) {
  EXPECT_EQ(lowercase("AbC\xC3\x89 \xCE\xA3"), "abc\xC3\xA9 \xCF\x83");
  EXPECT_EQ(lowercase("\xC4\xB0\xFF"), "i\xCC\x87\xFF");  // a dotted I becomes two characters
}

}  // namespace
}  // namespace wavroute
