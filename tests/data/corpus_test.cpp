// The two splits of a text, and the tokens that they are.
#include "data/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/corpus_files.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(CorpusFiles, TheSplitsAreTheWholeTextCutAtALineAbout5PercentBeforeTheEnd) {
  const std::string text = lines(1000);
  for (const TokenizerKind tokenizer : {TokenizerKind::kBytes, TokenizerKind::kChars}) {
    const Corpus corpus = open(text, tokenizer);
    const std::string train = text_of(corpus.train, *corpus.tokenizer);
    const std::string valid = text_of(corpus.valid, *corpus.tokenizer);
    EXPECT_EQ(train + valid, text);
    EXPECT_TRUE(train.ends_with('\n'));
    EXPECT_THAT(valid, StartsWith("line "));
    EXPECT_NEAR(valid.size(), text.size() / 20.0, 10);
    EXPECT_EQ(corpus.train_sha256, sha256_hex(train));
    EXPECT_EQ(corpus.valid_sha256, sha256_hex(valid));
    EXPECT_EQ(corpus.train_bytes, std::ssize(train));
  }
}

TEST_F(CorpusFiles, AShortTextStillHasOneSequenceInEachSplit) {
  const Corpus corpus = open(std::string(2 * (kContext + 1), 'x'));
  EXPECT_EQ(corpus.train.size(), kContext + 1);
  EXPECT_EQ(corpus.valid.size(), kContext + 1);
}

// 9 characters of 3 bytes in each split: the shortest text that works, counted in characters.
TEST_F(CorpusFiles, AShortTextOfLongCharactersIsCountedInTokens) {
  std::string text;
  for (int i = 0; i < 18; ++i) text += "\xE2\x82\xAC";
  const Corpus corpus = open(text, TokenizerKind::kChars);
  EXPECT_EQ(corpus.train.size(), 9);
  EXPECT_EQ(corpus.valid.size(), 9);
  EXPECT_EQ(corpus.valid_bytes_per_token, 3.0);
  EXPECT_THAT(error_of(text.substr(3), TokenizerKind::kChars), HasSubstr("at least 18 tokens"));
}

TEST_F(CorpusFiles, ALineEndIsNotSoughtFarAway) {
  const Corpus corpus = open("first line\n" + std::string(10000, 'x'));
  EXPECT_NEAR(corpus.valid.size(), 500, 2);
}

TEST_F(CorpusFiles, TooShortATextIsAnErrorWithBothNumbers) {
  const std::string error = error_of(std::string(17, 'x'));
  EXPECT_THAT(error, HasSubstr("model.context + 1 = 9"));
  EXPECT_THAT(error, HasSubstr("given 17, in"));
  EXPECT_THAT(error, HasSubstr("train.txt"));
}

TEST_F(CorpusFiles, TooShortAValidationTextIsAnErrorWithBothNumbers) {
  data_.valid = write("valid.txt", std::string(8, 'x'));
  const std::string error = error_of(lines(100));
  EXPECT_THAT(error, HasSubstr("at least 9 tokens (model.context + 1), given 8"));
  EXPECT_THAT(error, HasSubstr("valid.txt"));
}

TEST_F(CorpusFiles, EmptyAndMissingTextsAreErrorsThatNameThem) {
  EXPECT_THAT(error_of(""), HasSubstr("train.txt"));
  data_.train = (folder_ / "trian.txt").string();
  try {
    (void)open_corpus(data_, kContext);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("trian.txt"));
    EXPECT_THAT(error.hint(), HasSubstr("nearest name there is train.txt"));
  }
  data_.train = folder_.string();
  EXPECT_THAT(user_error([&] { (void)open_corpus(data_, kContext); }), HasSubstr(folder_.string()));
}

TEST_F(CorpusFiles, CharactersComeFromTheTrainingAndTheValidationText) {
  data_.valid = write("valid.txt", "line 1 line 1 Z");
  const Corpus corpus = open(lines(100), TokenizerKind::kChars);
  EXPECT_EQ(text_of(corpus.valid, *corpus.tokenizer), "line 1 line 1 Z");
  EXPECT_EQ(corpus.tokenizer->hash(), make_chars_tokenizer(lines(100) + "Z")->hash());
}

TEST_F(CorpusFiles, AnUnknownCharacterOfTheValidationTextIsNamedWithItsOffset) {
  data_.train = write("train.txt", lines(100));
  data_.valid = write("valid.txt", "line 1 line 1 Z");
  const std::string error =
      user_error([&] { (void)open_corpus(data_, kContext, make_chars_tokenizer(lines(100))); });
  EXPECT_THAT(error, HasSubstr("U+005A, at byte 14 of"));
  EXPECT_THAT(error, HasSubstr("valid.txt"));
}

TEST_F(CorpusFiles, UnknownCharactersAreLeftOutOrReplacedAndCounted) {
  const std::string text = "line 1 Z line\xff 1 ZZ line 2 and end\n";
  data_.train = write("train.txt", lines(100) + "and\n");
  data_.valid = write("valid.txt", text);
  const auto known = make_chars_tokenizer(lines(100) + "and\n");
  data_.unknown = UnknownText::kDrop;
  const Corpus dropped = open_corpus(data_, kContext, known);
  EXPECT_EQ(text_of(dropped.valid, *known), "line 1  line 1  line 2 and end\n");
  EXPECT_EQ(dropped.valid_bytes, std::ssize(text) - 4);
  EXPECT_THAT(dropped.description, HasSubstr("4 unknown characters"));
  EXPECT_EQ(dropped.valid_bytes_per_token, 1.0);
  // A vocabulary that was made without a token for them has none.
  data_.unknown = UnknownText::kUnk;
  EXPECT_THAT(user_error([&] { (void)open_corpus(data_, kContext, known); }), HasSubstr("U+FFFD"));
  data_.tokenizer = TokenizerKind::kChars;
  data_.valid = write("valid.txt", "line 1");
  const auto with_unknown = open_corpus(data_, 4).tokenizer;
  data_.valid = write("valid.txt", text);
  const Corpus replaced = open_corpus(data_, kContext, with_unknown);
  EXPECT_EQ(replaced.valid.size(), std::ssize(text));
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(text_of(replaced.valid, *with_unknown),
            "line 1 " + mark + " line" + mark + " 1 " + mark + mark + " line 2 and end\n");
  // Their loss counts, their bytes don't.
  const auto scored = static_cast<double>(std::ssize(text) - 1);
  EXPECT_DOUBLE_EQ(replaced.valid_bytes_per_token, (scored - 4) / scored);
}

// Longer than one piece of the encoding.
TEST_F(CorpusFiles, OffsetsAreThoseOfTheFileInALongText) {
  std::string valid;
  while (valid.size() < (size_t{5} << 19)) valid += "line 1 line 2\xE2\x82\xAC\n";
  const size_t at = valid.size();
  data_.valid = write("valid.txt", valid + "Z\n");
  data_.train = write("train.txt", lines(100));
  const auto known = make_chars_tokenizer(lines(100) + "\xE2\x82\xAC");
  EXPECT_THAT(user_error([&] { (void)open_corpus(data_, kContext, known); }),
              HasSubstr("U+005A, at byte " + std::to_string(at) + " of"));
}

TEST_F(CorpusFiles, LongTextsComeBackWhole) {
  std::string text = "x";
  while (text.size() < (size_t{5} << 19)) text += "\xE2\x82\xAC";
  data_.valid = write("valid.txt", lines(10) + "\xE2\x82\xAC");
  const Corpus corpus = open(text + lines(10), TokenizerKind::kChars);
  EXPECT_EQ(text_of(corpus.train, *corpus.tokenizer), text + lines(10));
}

TEST_F(CorpusFiles, MaxBytesLimitsTheTrainingTextAlone) {
  const std::string text = lines(1000);
  const Corpus whole = open(text), slice = open(text, TokenizerKind::kBytes, 100);
  EXPECT_EQ(text_of(slice.train, *slice.tokenizer), text.substr(0, 100));
  EXPECT_EQ(slice.valid_sha256, whole.valid_sha256);
}

TEST_F(CorpusFiles, MaxBytesNeverSplitsACharacter) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\xE2\x82\xAC";
  const Corpus corpus = open(text, TokenizerKind::kChars, 31);
  EXPECT_EQ(corpus.train.size(), 10);
}

TEST_F(CorpusFiles, TheTokenizerOfACheckpointIsKept) {
  const auto known = make_chars_tokenizer(lines(100) + "Z");
  data_.train = write("train.txt", lines(100));
  data_.tokenizer = TokenizerKind::kChars;
  EXPECT_EQ(open_corpus(data_, kContext, known).tokenizer->hash(), known->hash());
}

TEST_F(CorpusFiles, OffsetsInTheSplitOffPartAreThoseOfTheWholeFile) {
  const std::string text = lines(1000);
  const auto known = make_chars_tokenizer(text);
  // One at the very end, found while splitting, and one well before it.
  for (const std::string& end : {std::string("Z\n"), "Z\n" + lines(10)}) {
    data_.train = write("train.txt", text + end);
    EXPECT_THAT(user_error([&] { (void)open_corpus(data_, kContext, known); }),
                HasSubstr("U+005A, at byte " + std::to_string(text.size()) + " of"));
  }
}

}  // namespace
}  // namespace wavroute
