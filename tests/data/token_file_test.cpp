#include "data/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/data/scratch.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TokenFile : public ScratchTest {
 protected:
  TokenFile() : path_((folder_ / "a.tokens").string()), bytes_(make_bytes_tokenizer()) {}

  void write_tokens(const Tokenizer& tokenizer, const std::vector<uint32_t>& ids) {
    TokenFileWriter writer(path_, tokenizer, std::ssize(ids));
    writer.append(std::span(ids).first(ids.size() / 2));
    writer.append(std::span(ids).subspan(ids.size() / 2));
    writer.commit();
  }

  // Writes three tokens, then puts `value` at `offset`.
  template <typename Value>
  std::string error_with(size_t offset, Value value) {
    write_tokens(*bytes_, {1, 2, 3});
    std::string content = testing::get(path_);
    std::memcpy(content.data() + offset, &value, sizeof value);
    write("a.tokens", content);
    return user_error([&] { (void)all_tokens(open_token_file(path_, *bytes_)); });
  }

  // Writes a file by hand: the old version, or this one with valid checksums.
  void write_by_hand(uint32_t version, const std::vector<uint16_t>& ids, bool known = true) {
    std::string content = "WAVROUTE";
    const auto append = [&](auto value) {
      content.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    append(version);
    append(uint32_t{2});
    append(uint64_t{ids.size()});
    content += known ? from_hex(bytes_->hash()) : std::string(32, '\0');
    append(uint64_t{0});
    for (const uint16_t id : ids) append(id);
    if (version == 2) {
      content += std::string(32, '\0');
      content += from_hex(sha256_hex(content));
    }
    write("a.tokens", content);
  }

  static std::string from_hex(const std::string& hex) {
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return bytes;
  }

  std::string content_ = std::string("a\0b\0\1\1", 6);  // 97, 98, 257
  std::string path_;
  std::shared_ptr<const Tokenizer> bytes_;
};

// The layout is written out by hand here, byte for byte.
TEST_F(TokenFile, HasTheDocumentedLayout) {
  write_tokens(*bytes_, {1, 2, 255});
  std::string expected = "WAVROUTE";
  expected += std::string("\2\0\0\0\2\0\0\0\3\0\0\0\0\0\0\0", 16);
  expected += from_hex(bytes_->hash());
  expected += std::string("\0\0\0\0\0\0\0\0\1\0\2\0\xFF\0", 14);
  expected += std::string(32, '\0');  // of no text that is known
  expected += from_hex(sha256_hex(expected));
  EXPECT_EQ(testing::get(path_), expected);
}

TEST_F(TokenFile, TokensComeBack) {
  write_tokens(*bytes_, {5, 6, 7, 8, 255});
  const TokenView view = open_token_file(path_, *bytes_);
  EXPECT_THAT(all_tokens(view), ElementsAre(5, 6, 7, 8, 255));
  EXPECT_EQ(view.at(2), 7U);
  EXPECT_THAT(all_tokens(view.slice(1, 3)), ElementsAre(6, 7, 8));
  EXPECT_THAT(all_tokens(view.slice(1, 3).slice(1, 2)), ElementsAre(7, 8));
  EXPECT_EQ(read_token_file_info(path_).tokenizer, bytes_->hash());
}

TEST_F(TokenFile, AVocabularyAbove65536TakesFourBytes) {
  std::string text;
  for (uint32_t code_point = 0x10000; code_point < 0x20001; ++code_point) {
    for (int i = 3; i >= 0; --i) {
      const uint32_t bits = (code_point >> (6 * i)) & 0x3F;
      text += static_cast<char>(i == 3 ? 0xF0 | bits : 0x80 | bits);
    }
  }
  const auto chars = make_chars_tokenizer(text);
  ASSERT_EQ(chars->vocab_size(), 65537);
  write_tokens(*chars, {65536, 0, 65535});
  EXPECT_THAT(all_tokens(open_token_file(path_, *chars)), ElementsAre(65536, 0, 65535));
  EXPECT_EQ(testing::get(path_).size(), 64U + 3 * 4 + 64);
  EXPECT_EQ(token_width(65536), 2);
}

TEST_F(TokenFile, HostileHeadersAreRefusedWithTheFileNamed) {
  const std::vector<std::string> errors = {
      error_with<char>(0, 'X'),
      error_with<uint32_t>(8, 0),   // version
      error_with<uint32_t>(8, 3),   //
      error_with<uint32_t>(8, 1),   // of a file without a trailer
      error_with<uint32_t>(12, 0),  // width
      error_with<uint32_t>(12, 3),  //
      error_with<uint32_t>(12, 4),  // six bytes are no whole tokens of four
      error_with<uint64_t>(16, 2),  // count
      error_with<uint64_t>(16, 4),  //
      error_with<uint64_t>(16,
                           (uint64_t{1} << 63) + 3),  // twice that overflows to the right length
      error_with<uint64_t>(24, 7),                    // another tokenizer
      error_with<uint8_t>(63, 1),                     // not zero
      error_with<uint16_t>(66, 7),                    // another token than was written
      error_with<uint8_t>(70, 1),                     // another text
      error_with<uint8_t>(133, 1),                    // another checksum
  };
  for (const std::string& error : errors) EXPECT_THAT(error, HasSubstr("a.tokens"));
}

TEST_F(TokenFile, EveryTruncationIsRefused) {
  write_tokens(*bytes_, {1, 2, 3});
  const std::string content = testing::get(path_);
  for (size_t length = 0; length < content.size(); ++length) {
    write("a.tokens", content.substr(0, length));
    EXPECT_THAT(user_error([&] { (void)open_token_file(path_, *bytes_); }), HasSubstr("a.tokens"))
        << length;
  }
  write("a.tokens", content + "x");
  EXPECT_THAT(user_error([&] { (void)open_token_file(path_, *bytes_); }), HasSubstr("a.tokens"));
}

TEST_F(TokenFile, ATokenBeyondTheVocabularyIsNamedWithItsPlace) {
  for (const uint32_t version : {1U, 2U}) {
    write_by_hand(version, {1, 2, 256});
    const std::string error = user_error([&] { (void)open_token_file(path_, *bytes_); });
    EXPECT_THAT(error, HasSubstr("below 256, given 256, at token 2"));
    EXPECT_THAT(error, HasSubstr("a.tokens"));
  }
}

TEST_F(TokenFile, AnUnknownTokenizerIsTakenAtItsWord) {
  write_by_hand(2, {1, 2, 3}, /*known=*/false);
  EXPECT_EQ(read_token_file_info(path_).tokenizer, "");
  EXPECT_THAT(all_tokens(open_token_file(path_, *bytes_)), ElementsAre(1, 2, 3));
}

TEST_F(TokenFile, AFileOfTheFirstVersionIsStillRead) {
  write_by_hand(1, {1, 2, 3});
  EXPECT_THAT(all_tokens(open_token_file(path_, *bytes_)), ElementsAre(1, 2, 3));
  // It names no text.
  EXPECT_THAT(user_error([&] { (void)open_tokens_of_text(path_, *bytes_, sha256_hex("x")); }),
              HasSubstr("a.tokens"));
}

TEST_F(TokenFile, RawIdsAreReadInEitherWidth) {
  const std::string raw = write("raw.bin", std::string("a\0b\0\xFF\0c\0", 8));
  EXPECT_THAT(all_tokens(open_raw_tokens(raw, 2, *bytes_)), ElementsAre('a', 'b', 255, 'c'));
  const std::string wide = write("wide.bin", std::string("a\0\0\0b\0\0\0", 8));
  EXPECT_THAT(all_tokens(open_raw_tokens(wide, 4, *bytes_)), ElementsAre('a', 'b'));
  EXPECT_THAT(user_error([&] { (void)open_raw_tokens(wide, 2, *make_chars_tokenizer("ab")); }),
              HasSubstr("below 2, given 97, at token 0 of " + wide));
  EXPECT_THAT(user_error([&] { (void)open_raw_tokens(raw, 4, *bytes_); }),
              HasSubstr("below 256, given 6422625, at token 0 of " + raw));
  const std::string odd = write("odd.bin", "abc");
  EXPECT_THAT(user_error([&] { (void)open_raw_tokens(odd, 2, *bytes_); }),
              HasSubstr("expected ids of 2 bytes each, given 3 bytes, in " + odd));
}

TEST_F(TokenFile, APlaceInASliceIsThatInTheFile) {
  const TokenView lenient(nullptr, std::as_bytes(std::span(content_)), 2, 256, "a");
  EXPECT_THAT(user_error([&] { (void)lenient.slice(1, 2).at(1); }), HasSubstr("at token 2 of"));
}

TEST_F(TokenFile, ReadingOutsideIsAnError) {
  write_tokens(*bytes_, {1, 2, 3});
  const TokenView view = open_token_file(path_, *bytes_);
  std::vector<int64_t> two(2);
  EXPECT_THAT(user_error([&] { view.copy(2, two); }), HasSubstr("within the 3"));
  EXPECT_THAT(user_error([&] { view.copy(-1, two); }), HasSubstr("within the 3"));
  EXPECT_THAT(user_error([&] { (void)view.slice(0, 2).at(2); }), HasSubstr("within the 2"));
}

TEST_F(TokenFile, AnUnfinishedFileDoesNotAppear) {
  const std::vector<uint32_t> ids = {1, 2, 3};
  {
    TokenFileWriter writer(path_, *bytes_, 4);
    writer.append(ids);
    EXPECT_THROW(writer.commit(), Failure);  // one token is missing
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(TokenFile, ViewsOutliveTheFileTheyCameFrom) {
  write_tokens(*bytes_, {1, 2, 3});
  const TokenView part = open_token_file(path_, *bytes_).slice(1, 2);
  std::filesystem::remove(path_);
  EXPECT_THAT(all_tokens(part), ElementsAre(2, 3));
}

}  // namespace
}  // namespace wavroute
