// Tokens that are kept for the next run.
#include "data/token_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "io/child_process.h"
#include "io/file.h"
#include "tests/data/bpe_json.h"
#include "tests/data/corpus_files.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

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

// What a later release mends in an encoder is not undone by tokens of an earlier one.
TEST(TokenCache, TheEncodersVersionIsPartOfTheKey) {
  const std::string text = sha256_hex("text");
  const auto plain = [&](const Tokenizer& of) { return sha256_hex(text + of.hash()); };
  const auto bpe = tokenizer_from_json(testing::byte_level_tokenizer({"a b"}).dump());
  ASSERT_EQ(bpe->name(), "bpe");
  EXPECT_NE(cache_key(text, *bpe), plain(*bpe));
  for (const auto& other : {make_bytes_tokenizer(), make_chars_tokenizer("ab")}) {
    EXPECT_EQ(cache_key(text, *other), plain(*other));  // as ever
  }
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
    std::string content = testing::get(file);
    std::fill(content.begin() + 64, content.end() - 64, '\0');
    return content;
  });
  EXPECT_EQ(all_tokens(open(text).train), tokens);
  refill([](const auto& file) {
    std::string content = testing::get(file);
    content[64] ^= 1;
    return content;
  });
  EXPECT_EQ(all_tokens(open(text).train), tokens);
  // The other split's file: whole, of this tokenizer, of another text.
  refill([&](const auto& file) { return testing::get(file == files[0] ? files[1] : files[0]); });
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

TEST_F(CorpusFiles, TheCacheKnowsTextsAndTokenizersApart) {
  const auto first = all_tokens(open(lines(1000)).train);
  const auto chars = all_tokens(open(lines(1000), TokenizerKind::kChars).train);
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
      const std::string damaged = damage(testing::get(file));
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
  std::vector<ChildProcess> children;
  children.reserve(6);
  for (int i = 0; i < 6; ++i) {
    children.emplace_back(std::function<int()>([&] {
      const auto tokens = all_tokens(open_corpus(data_, kContext).train);
      return std::equal(tokens.begin(), tokens.end(), expected.begin()) ? 0 : 1;
    }));
  }
  for (ChildProcess& child : children) {
    child.wait();
    EXPECT_EQ(child.exit_code(), 0);
  }
  EXPECT_EQ(cached_files().size(), 2U);  // and nothing temporary
}

}  // namespace
}  // namespace wavroute
