#include "data/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "data/scratch.h"
#include "data/token_cache.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int64_t kContext = 8;

class CorpusFiles : public ScratchTest {
 protected:
  // Opens a corpus whose training text is `text`.
  [[nodiscard]] Corpus open(const std::string& text, const std::string& tokenizer = "bytes",
                            int64_t max_bytes = 0) {
    data_.train = write("train.txt", text);
    data_.tokenizer = tokenizer;
    data_.max_bytes = max_bytes;
    return open_corpus(data_, kContext);
  }

  [[nodiscard]] std::string error_of(const std::string& text,
                                     const std::string& tokenizer = "bytes") {
    return user_error([&] { (void)open(text, tokenizer); });
  }

  DataConfig data_;
};

std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "line " + std::to_string(i) + "\n";
  return text;
}

std::string text_of(const TokenView& tokens, const Tokenizer& tokenizer) {
  std::string text;
  for (const int64_t id : all_tokens(tokens)) {
    text += tokenizer.token_bytes(static_cast<uint32_t>(id));
  }
  return text;
}

TEST_F(CorpusFiles, TheSplitsAreTheWholeTextCutAtALineAbout5PercentBeforeTheEnd) {
  const std::string text = lines(1000);
  for (const std::string tokenizer : {"bytes", "chars"}) {
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
  const Corpus corpus = open(text, "chars");
  EXPECT_EQ(corpus.train.size(), 9);
  EXPECT_EQ(corpus.valid.size(), 9);
  EXPECT_EQ(corpus.valid_bytes_per_token, 3.0);
  EXPECT_THAT(error_of(text.substr(3), "chars"), HasSubstr("at least 18 tokens"));
}

TEST_F(CorpusFiles, ALineEndIsNotSoughtFarAway) {
  const Corpus corpus = open("first line\n" + std::string(10000, 'x'));
  EXPECT_NEAR(corpus.valid.size(), 500, 2);
}

TEST_F(CorpusFiles, TooShortATextIsAnErrorWithBothNumbers) {
  const std::string error = error_of(std::string(17, 'x'));
  EXPECT_THAT(error, HasSubstr("model.context + 1 = 9"));
  EXPECT_THAT(error, HasSubstr("got 17 in"));
  EXPECT_THAT(error, HasSubstr("train.txt"));
}

TEST_F(CorpusFiles, TooShortAValidationTextIsAnErrorWithBothNumbers) {
  data_.valid = write("valid.txt", std::string(8, 'x'));
  const std::string error = error_of(lines(100));
  EXPECT_THAT(error, HasSubstr("at least 9 tokens (model.context + 1), got 8"));
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

TEST_F(CorpusFiles, AnUnknownTokenizerIsAnError) {
  EXPECT_THAT(error_of(lines(100), "gpt5"), HasSubstr("got \"gpt5\" in data.tokenizer"));
}

TEST_F(CorpusFiles, AnUnknownCharacterOfTheValidationTextIsNamedWithItsOffset) {
  data_.valid = write("valid.txt", "line 1 line 1 Z");
  const std::string error = error_of(lines(100), "chars");
  EXPECT_THAT(error, HasSubstr("U+005A at byte 14 of"));
  EXPECT_THAT(error, HasSubstr("valid.txt"));
}

// Beyond the first piece that is encoded at a time.
TEST_F(CorpusFiles, OffsetsAreThoseOfTheFileInALongText) {
  std::string valid;
  while (valid.size() < (size_t{5} << 19)) valid += "line 1 line 2\xE2\x82\xAC\n";
  const size_t at = valid.size();
  data_.valid = write("valid.txt", valid + "Z\n");
  EXPECT_THAT(error_of(lines(100) + "\xE2\x82\xAC", "chars"),
              HasSubstr("U+005A at byte " + std::to_string(at) + " of"));
}

TEST_F(CorpusFiles, LongTextsComeBackWhole) {
  std::string text = "x";
  while (text.size() < (size_t{5} << 19)) text += "\xE2\x82\xAC";
  data_.valid = write("valid.txt", lines(10) + "\xE2\x82\xAC");
  const Corpus corpus = open(text + lines(10), "chars");
  EXPECT_EQ(text_of(corpus.train, *corpus.tokenizer), text + lines(10));
}

TEST_F(CorpusFiles, MaxBytesLimitsTheTrainingTextAlone) {
  const std::string text = lines(1000);
  const Corpus whole = open(text), slice = open(text, "bytes", 100);
  EXPECT_EQ(text_of(slice.train, *slice.tokenizer), text.substr(0, 100));
  EXPECT_EQ(slice.valid_sha256, whole.valid_sha256);
}

TEST_F(CorpusFiles, MaxBytesNeverSplitsACharacter) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\xE2\x82\xAC";
  const Corpus corpus = open(text, "chars", 31);
  EXPECT_EQ(corpus.train.size(), 10);
}

TEST_F(CorpusFiles, TheTokenizerOfACheckpointIsKept) {
  const auto known = make_chars_tokenizer(lines(100) + "Z");
  data_.train = write("train.txt", lines(100));
  data_.tokenizer = "chars";
  EXPECT_EQ(open_corpus(data_, kContext, known).tokenizer->hash(), known->hash());
}

TEST_F(CorpusFiles, OffsetsInTheSplitOffPartAreThoseOfTheWholeFile) {
  const std::string text = lines(1000);
  const auto known = make_chars_tokenizer(text);
  // One at the very end, met while the split is made, and one well before it.
  for (const std::string& end : {std::string("Z\n"), "Z\n" + lines(10)}) {
    data_.train = write("train.txt", text + end);
    EXPECT_THAT(user_error([&] { (void)open_corpus(data_, kContext, known); }),
                HasSubstr("U+005A at byte " + std::to_string(text.size()) + " of"));
  }
}

TEST_F(CorpusFiles, ATokenFileGivesTheSameCorpusAsItsText) {
  const std::string text = lines(500);
  for (const std::string name : {"bytes", "chars"}) {
    const auto tokenizer = name == "bytes" ? make_bytes_tokenizer() : make_chars_tokenizer(text);
    data_.valid = write("valid.txt", lines(20));
    const Corpus of_text = open(text, name, 1000);
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
              HasSubstr("another tokenizer in " + data_.train));
  data_.tokenizer = "chars";  // its vocabulary is nowhere
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
              HasSubstr("at least 2 tokens (the first is not scored), got 1"));
}

TEST_F(CorpusFiles, TheCacheIsReused) {
  const std::string text = lines(1000);
  const Corpus first = open(text);
  const auto files = cached_files();
  ASSERT_EQ(files.size(), 2U);  // one for each split
  // A file that was written anew would be another file under the same name.
  const auto identities = [&] {
    std::vector<ino_t> numbers;
    for (const auto& file : files) {
      struct stat status {};
      EXPECT_EQ(::stat(file.c_str(), &status), 0);
      numbers.push_back(status.st_ino);
      std::filesystem::create_hard_link(file, file.string() + ".held");  // the number stays taken
    }
    return numbers;
  };
  const auto before = identities();
  EXPECT_EQ(all_tokens(open(text).train), all_tokens(first.train));
  for (const auto& file : files) std::filesystem::remove(file.string() + ".held");
  EXPECT_EQ(identities(), before);
}

// A cache that a full disk or a crash filled with zeros has the right length and valid tokens.
TEST_F(CorpusFiles, ACacheFileIsTrustedOnlyForTheTextAndTheContentThatItWasMadeOf) {
  const std::string text = lines(1000);
  const auto tokens = all_tokens(open(text).train);
  const auto files = cached_files();
  const auto refill = [&](const std::function<std::string(const std::filesystem::path&)>& make) {
    std::vector<std::string> contents;
    contents.reserve(files.size());
    for (const auto& file : files) contents.push_back(make(file));
    for (size_t i = 0; i < files.size(); ++i) {
      std::ofstream(files[i], std::ios::binary) << contents[i];
    }
  };
  refill([](const auto& file) {
    std::string content = content_of(file);
    std::fill(content.begin() + 64, content.end() - 64, '\0');
    return content;
  });
  EXPECT_EQ(all_tokens(open(text).train), tokens);
  refill([](const auto& file) {
    std::string content = content_of(file);
    content[64] ^= 1;
    return content;
  });
  EXPECT_EQ(all_tokens(open(text).train), tokens);
  // The other split's file: whole, of this tokenizer, of another text.
  refill([&](const auto& file) { return content_of(file == files[0] ? files[1] : files[0]); });
  EXPECT_EQ(all_tokens(open(text).train), tokens);
}

TEST_F(CorpusFiles, TheCacheDropsWhatWasUsedLongestAgoBeyondItsLimitAndNothingElse) {
  (void)open(lines(1000));
  const auto old = cached_files();
  const auto now = std::filesystem::file_time_type::clock::now();
  std::filesystem::last_write_time(old[0], now - std::chrono::hours(48));
  std::filesystem::last_write_time(old[1], now - std::chrono::hours(24));
  const std::string foreign = write("cache/notes.tokens", std::string(100000, 'x'));
  std::filesystem::last_write_time(foreign, now - std::chrono::hours(72));
  uintmax_t bytes = std::filesystem::file_size(old[1]);
  data_.valid = write("valid.txt", lines(10));
  const std::string text = lines(500);
  bytes += 2 * (text.size() + std::filesystem::file_size(data_.valid)) + 2 * 128;
  setenv("WAVROUTE_CACHE_BYTES", std::to_string(bytes).c_str(), 1);
  (void)open(text);
  EXPECT_FALSE(std::filesystem::exists(old[0]));
  EXPECT_TRUE(std::filesystem::exists(old[1]));
  EXPECT_TRUE(std::filesystem::exists(foreign));
  setenv("WAVROUTE_CACHE_BYTES", "0", 1);  // what was used within the hour stays even so
  (void)open(lines(501));
  EXPECT_FALSE(std::filesystem::exists(old[1]));
  EXPECT_EQ(cached_files().size(), 1 + 2 + 1U);
  setenv("WAVROUTE_CACHE_BYTES", "10 GB", 1);
  EXPECT_THAT(error_of(lines(502)), HasSubstr("'10 GB' in WAVROUTE_CACHE_BYTES"));
  unsetenv("WAVROUTE_CACHE_BYTES");
}

TEST_F(CorpusFiles, TheCacheCanBeTurnedOff) {
  const auto expected = all_tokens(open(lines(1000)).train);
  for (const auto& file : cached_files()) std::filesystem::remove(file);
  setenv("WAVROUTE_CACHE", "off", 1);
  EXPECT_EQ(all_tokens(open(lines(1000)).train), expected);
  EXPECT_TRUE(cached_files().empty());
  EXPECT_FALSE(std::filesystem::exists("off"));
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
      {padded("\x88\xd8\x34\x01"), "a token file of llm.c (magic 20240520)"},
      {padded("\xa1\xd9\x34\x01"), "a token file of llm.c (magic 20240801)"},
      {padded(std::string("GGUF\x03\0\0\0", 8)), "a GGUF model"},
      {padded("\x7f"
              "ELF"),
       "a program (ELF)"},
      {padded(std::string("SQLite format 3\0", 16)), "an SQLite database"},
      {padded("%PDF-1.7"), "a PDF"},
      {tar, "a tar archive"},
      {padded("\xff\xfe"), "UTF-16 text"}};
  for (const auto& [content, name] : files) {
    for (const char* format : {"auto", "text"}) {
      data_.format = format;
      EXPECT_THAT(error_of(content), HasSubstr("expected text, got " + name)) << name;
    }
    data_.format = "bytes";
    EXPECT_EQ(open(content).train.at(0), static_cast<unsigned char>(content[0])) << name;
  }
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
  EXPECT_THAT(error_of(raw), HasSubstr("expected text, got what looks like 16-bit token ids in"));
  for (const auto& [format, content] : {std::pair("tokens16", raw), std::pair("tokens32", wide)}) {
    data_.format = format;
    const Corpus corpus = open(content);
    EXPECT_EQ(corpus.train.at(1), 'b');
    EXPECT_EQ(corpus.train.size() + corpus.valid.size(), 1000);
    EXPECT_EQ(corpus.train_bytes + corpus.valid_bytes, 1000);  // of text, not of the file
    EXPECT_EQ(corpus.valid_bytes_per_token, 1.0);
  }
  data_.format = "tokens16";
  raw.replace(2 * 700, 2, "\x50\xC4");  // GPT-2's 50256
  EXPECT_THAT(error_of(raw), HasSubstr("below 256, got 50256 at token 700 of"));
  EXPECT_THAT(error_of(raw, "chars"), HasSubstr("train.txt.tokenizer.json"));
  write("train.txt.tokenizer.json", make_chars_tokenizer("\xE2\x82\xAC"
                                                         "ab")
                                        ->to_json());
  const Corpus corpus = open(std::string("\2\0\0\0\1\0\2\0", 8) + std::string(80, '\0'), "chars");
  EXPECT_EQ(corpus.train_bytes + corpus.valid_bytes, 44 + 2 + 2);  // the euro has three bytes
  data_.format = "tokens";
  EXPECT_THAT(error_of(raw), HasSubstr("got \"tokens\" in data.format"));
}

TEST_F(CorpusFiles, TheCacheKnowsTextsAndTokenizersApart) {
  const auto first = all_tokens(open(lines(1000)).train);
  const auto chars = all_tokens(open(lines(1000), "chars").train);
  EXPECT_NE(first, chars);
  EXPECT_EQ(cached_files().size(), 4U);
  (void)open(lines(1001));
  EXPECT_EQ(cached_files().size(), 6U);
}

TEST_F(CorpusFiles, ADamagedCacheFileIsMadeAnew) {
  const std::string text = lines(1000);
  const auto tokens = all_tokens(open(text).train);
  const std::vector<std::function<std::string(std::string)>> damages = {
      [](const std::string&) { return std::string(); },
      [](const std::string& content) { return content.substr(0, content.size() / 2); },
      [](std::string content) { return content.replace(8, 1, "\7"); },      // version
      [](std::string content) { return content.replace(30, 4, "abcd"); },   // tokenizer
      [](std::string content) { return content.replace(201, 1, "\x09"); },  // a token above 255
  };
  for (const auto& damage : damages) {
    for (const auto& file : cached_files()) {
      const std::string damaged = damage(content_of(file));
      std::ofstream(file, std::ios::binary) << damaged;
    }
    EXPECT_EQ(all_tokens(open(text).train), tokens);
    for (const auto& file : cached_files()) {
      EXPECT_NO_THROW((void)all_tokens(open_token_file(file, *make_bytes_tokenizer())));
    }
  }
}

TEST_F(CorpusFiles, WithoutACacheFolderTheTokensStayInMemory) {
  const std::string text = lines(1000);
  const std::string in_the_way = write("file", "");
  const auto expected = all_tokens(open(text).train);
  setenv("WAVROUTE_CACHE", (in_the_way + "/cache").c_str(), 1);  // below a file: can't be made
  EXPECT_EQ(all_tokens(open(text).train), expected);
}

TEST(TokenCache, FolderFollowsTheEnvironment) {
  const char* home = getenv("HOME");
  const std::string saved = home == nullptr ? "" : home;
  setenv("WAVROUTE_CACHE", "/a", 1);
  setenv("XDG_CACHE_HOME", "/b", 1);
  setenv("HOME", "/c", 1);
  EXPECT_EQ(cache_folder().lexically_normal().string().substr(0, 2), "/a");
  unsetenv("WAVROUTE_CACHE");
  EXPECT_EQ(cache_folder(), "/b/wavroute");
  unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(cache_folder(), "/c/.cache/wavroute");
  unsetenv("HOME");
  EXPECT_TRUE(cache_folder().empty());
  if (!saved.empty()) setenv("HOME", saved.c_str(), 1);
}

// Several processes that begin at once all get the right tokens and leave a sound cache.
TEST_F(CorpusFiles, ProcessesThatStartTogetherShareTheCache) {
  data_.train = write("train.txt", lines(20000));
  const auto expected = make_bytes_tokenizer()->encode(lines(20000));
  constexpr int kProcesses = 6;
  for (int i = 0; i < kProcesses; ++i) {
    if (fork() != 0) continue;
    bool right = false;
    try {
      const auto tokens = all_tokens(open_corpus(data_, kContext).train);
      right = std::equal(tokens.begin(), tokens.end(), expected.begin());
    } catch (const std::exception&) {
    }
    _exit(right ? 0 : 1);
  }
  for (int i = 0; i < kProcesses; ++i) {
    int status = 0;
    ASSERT_GT(wait(&status), 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(cached_files().size(), 2U);  // and nothing temporary
}

}  // namespace
}  // namespace wavroute
