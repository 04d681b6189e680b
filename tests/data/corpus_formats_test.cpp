// What a file is taken for: text, tokens, or neither.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "data/known_formats.h"
#include "tests/data/corpus_files.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

TEST_F(CorpusFiles, ATokenFileGivesTheSameCorpusAsItsText) {
  const std::string text = lines(500);
  for (const TokenizerKind kind : {TokenizerKind::kBytes, TokenizerKind::kChars}) {
    const std::string name = to_string(kind);
    const auto tokenizer =
        kind == TokenizerKind::kBytes ? make_bytes_tokenizer() : make_chars_tokenizer(text);
    data_.valid = write("valid.txt", lines(20));
    const Corpus of_text = open(text, kind, 1000);
    const auto ids = tokenizer->encode(text);
    data_.train = (folder_ / (name + ".tokens")).string();
    TokenFileWriter writer(data_.train, *tokenizer, std::ssize(ids));
    writer.append(ids);
    writer.commit();
    write(name + ".tokens.tokenizer.json", tokenizer->to_json());
    const Corpus of_tokens = open_corpus(data_, kContext);
    EXPECT_EQ(all_tokens(of_tokens.train), all_tokens(of_text.train));
    EXPECT_EQ(of_tokens.train_bytes, 1000);
    data_.valid.clear();
    const Corpus parted = open_corpus(data_, kContext);
    EXPECT_EQ(parted.valid.size(), std::ssize(ids) / 20);
  }
}

TEST_F(CorpusFiles, ATokenFileOfAnotherTokenizerIsRefused) {
  const auto chars = make_chars_tokenizer(lines(100));
  const auto ids = chars->encode(lines(100));
  data_.train = (folder_ / "a.tokens").string();
  TokenFileWriter writer(data_.train, *chars, std::ssize(ids));
  writer.append(ids);
  writer.commit();
  EXPECT_THAT(user_error([&] { (void)open_corpus(data_, kContext); }),
              HasSubstr("another tokenizer, in " + data_.train));
  data_.tokenizer = TokenizerKind::kChars;  // its vocabulary is nowhere
  EXPECT_THAT(user_error([&] { (void)open_corpus(data_, kContext); }),
              HasSubstr("a.tokens.tokenizer.json"));
}

TEST_F(CorpusFiles, OpenTokensReadsAnyTextWithAGivenTokenizer) {
  const auto chars = make_chars_tokenizer(lines(100));
  const std::string path = write("other.txt", lines(5));
  EXPECT_EQ(text_of(open_tokens(path, *chars), *chars), lines(5));
  write("other.txt", "li");  // shorter than any context
  EXPECT_EQ(open_tokens(path, *chars).size(), 2);
  write("other.txt", "l");
  EXPECT_THAT(user_error([&] { (void)open_tokens(path, *chars); }),
              HasSubstr("at least 2 tokens (the first is not scored), given 1"));
}

// The bytes with which each format begins, as its specification gives them.
TEST_F(CorpusFiles, KnownBinaryFormatsAreRefusedByName) {
  const auto padded = [](const std::string& begin) { return begin + std::string(400, 'x'); };
  std::string tar(1024, 'x'), safetensors = R"(........{"a":{}})" + std::string(64, 'x');
  tar.replace(257, 6, std::string("ustar\0", 6));
  safetensors.replace(0, 8, std::string("\x08\0\0\0\0\0\0\0", 8));
  const std::vector<std::pair<std::string, std::string>> files = {
      {padded("\x1f\x8b\x08"), "gzip data"},
      {padded(std::string("\xfd"
                          "7zXZ\0",
                          6)),
       "xz data"},
      {padded("\x28\xb5\x2f\xfd"), "zstd data"},
      {padded("BZh91AY&SY"), "bzip2 data"},
      {padded("PK\x03\x04"), "a zip archive"},
      {padded("PAR1") + "PAR1", "a Parquet file"},
      {padded("\x93NUMPY"), "a NumPy array"},
      {safetensors, "a safetensors file"},
      {padded(std::string("GGUF\x03\0\0\0", 8)), "a GGUF model"},
      {padded("\x7f"
              "ELF"),
       "a program (ELF)"},
      {padded(std::string("SQLite format 3\0", 16)), "an SQLite database"},
      {padded("%PDF-1.7"), "a PDF"},
      {tar, "a tar archive"},
      {padded("\xff\xfe"), "UTF-16 text"}};
  for (const auto& [content, name] : files) {
    for (const DataFormat format : {DataFormat::kAuto, DataFormat::kText}) {
      data_.format = format;
      EXPECT_THAT(error_of(content), HasSubstr("expected text, given " + name)) << name;
    }
    data_.format = DataFormat::kBytes;
    EXPECT_EQ(open(content).train.at(0), static_cast<unsigned char>(content[0])) << name;
  }
}

// 256 integers of 32 bits, then the ids, as dev/data/data_common.py of llm.c writes them.
std::string llmc_file(int32_t magic, int32_t version, int32_t count, const std::string& ids) {
  std::string header(1024, '\0');
  const std::array<int32_t, 3> begin = {magic, version, count};
  std::memcpy(header.data(), begin.data(), sizeof begin);
  return header + ids;
}

TEST_F(CorpusFiles, TokenFilesOfLlmcAreKnownByTheirHeader) {
  std::string narrow, wide;
  for (int i = 0; i < 100; ++i) {
    narrow += {static_cast<char>('a' + i % 26), '\0'};
    wide += {static_cast<char>('a' + i % 26), '\0', '\0', '\0'};
  }
  for (const auto& [content, width] : {std::pair(llmc_file(20240520, 1, 100, narrow), 2),
                                       std::pair(llmc_file(20240801, 7, 100, wide), 4)}) {
    const Corpus corpus = open(content);
    EXPECT_EQ(corpus.train.size() + corpus.valid.size(), 100) << width;
    EXPECT_EQ(corpus.train.at(1), 'b');
    data_.format = DataFormat::kText;
    EXPECT_THAT(error_of(content), HasSubstr("expected text, given a token file of llm.c"));
    data_.format = DataFormat::kAuto;
  }
  EXPECT_THAT(error_of(llmc_file(20240520, 2, 100, narrow)), HasSubstr("version 1, given 2"));
  EXPECT_THAT(error_of(llmc_file(20240520, 1, 101, narrow)),
              HasSubstr("101 tokens of 2 bytes after the header, given 200 bytes"));
  EXPECT_THAT(error_of(llmc_file(20240520, 1, -1, narrow)), HasSubstr("-1 tokens"));
  EXPECT_THAT(error_of(llmc_file(20240520, 1, 0, "").substr(0, 100)),
              HasSubstr("a header of 1024 bytes, given 100"));
  std::string beyond = narrow;
  beyond.replace(2 * 7, 2, "\x50\xC4");  // GPT-2's 50256
  EXPECT_THAT(error_of(llmc_file(20240520, 1, 100, beyond)), HasSubstr("given 50256, at token 7"));
}

TEST_F(CorpusFiles, ATextThatBeginsLikeTheNameOfAFormatIsText) {
  for (const std::string begin : {"GGUF is", "PAR1", "BZh9 is", "PK", "7z", "ARROW1", "{\"a\"",
                                  "WAVROUT", "ustar", "\xEF\xBB\xBF"}) {
    EXPECT_NO_THROW((void)open(begin + lines(100))) << begin;
  }
  // Zero bytes between documents, Latin-1, and colours of a terminal.
  EXPECT_NO_THROW((void)open(lines(20) + '\0' + lines(20) +
                             "gr\xF6\xDF"
                             "e \x1b[1m" +
                             lines(20)));
}

TEST_F(CorpusFiles, RawTokenIdsAreNotTakenForTextButReadWhereTheFormatSaysSo) {
  std::string raw, wide;
  for (int i = 0; i < 1000; ++i) {
    raw += {static_cast<char>('a' + i % 26), '\0'};
    wide += {static_cast<char>('a' + i % 26), '\0', '\0', '\0'};
  }
  EXPECT_THAT(error_of(raw),
              HasSubstr("expected text, given what looks like 16-bit token ids, in"));
  for (const auto& [format, content] :
       {std::pair(DataFormat::kTokens16, raw), std::pair(DataFormat::kTokens32, wide)}) {
    data_.format = format;
    const Corpus corpus = open(content);
    EXPECT_EQ(corpus.train.at(1), 'b');
    EXPECT_EQ(corpus.train.size() + corpus.valid.size(), 1000);
    EXPECT_EQ(corpus.train_bytes + corpus.valid_bytes, 1000);  // of text, not of the file
    EXPECT_EQ(corpus.valid_bytes_per_token, 1.0);
  }
  data_.format = DataFormat::kTokens16;
  raw.replace(2 * 700, 2, "\x50\xC4");  // GPT-2's 50256
  EXPECT_THAT(error_of(raw), HasSubstr("below 256, given 50256, at token 700 of"));
  EXPECT_THAT(error_of(raw, TokenizerKind::kChars), HasSubstr("train.txt.tokenizer.json"));
  write("train.txt.tokenizer.json", make_chars_tokenizer("\xE2\x82\xAC"
                                                         "ab")
                                        ->to_json());
  const Corpus corpus =
      open(std::string("\2\0\0\0\1\0\2\0", 8) + std::string(80, '\0'), TokenizerKind::kChars);
  EXPECT_EQ(corpus.train_bytes + corpus.valid_bytes, 44 + 2 + 2);  // the euro has three bytes
}

TEST(NotText, HintsNameTheFormatAsConfigurationsAndEvalSpellIt) {
  for (const std::string& content : {std::string("\x93NUMPY"), std::string("\x88\xd8\x34\x01"),
                                     std::string("\xa1\xd9\x34\x01"), std::string(100, '\1')}) {
    const auto refused = not_text(content);
    ASSERT_TRUE(refused.has_value());
    EXPECT_THAT(refused->hint, HasSubstr("data.format = \"")) << refused->what;
    EXPECT_THAT(refused->hint, HasSubstr("eval: --format")) << refused->what;
  }
}

}  // namespace
}  // namespace wavroute
