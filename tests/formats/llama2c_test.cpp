// Checkpoints of llama2.c that are none; tests/python/test_import.py reads real ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "formats/foreign_model.h"
#include "formats/tokenizer_files.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::put;
using testing::TemporaryFolder;

std::string words(std::initializer_list<int32_t> values) {
  std::string bytes;
  for (const int32_t value : values) {
    std::array<char, 4> raw{};
    std::memcpy(raw.data(), &value, raw.size());
    bytes.append(raw.data(), raw.size());
  }
  return bytes;
}

class Llama2c : public ::testing::Test {
 protected:
  std::string refusal(const std::string& bytes) {
    put(folder_ / "m.bin", bytes);
    return message_of<UserError>([&] { (void)open_llama2c(folder_ / "m.bin"); });
  }
  TemporaryFolder folder_;
};

// width 4, hidden 3, 1 layer, 2 heads, 1 kv head, 5 tokens, context 2: as many numbers.
constexpr int64_t kNumbers =
    5 * 4 + 4 + 4 * 4 + 2 * 4 + 2 * 4 + 4 * 4 + 4 + 3 * (3 * 4) + 4 + 2 * 2;

TEST_F(Llama2c, IsAsLongAsItsSizesSay) {
  const std::string head = words({4, 3, 1, 2, 1, 5, 2});
  put(folder_ / "m.bin", head + std::string(4 * kNumbers, '\0'));
  const ForeignModel model = open_llama2c(folder_ / "m.bin");
  EXPECT_TRUE(model.model.tie_embeddings);
  EXPECT_EQ(model.vocab_size, 5);
  EXPECT_THAT(refusal(head + std::string(4 * kNumbers - 1, '\0')), HasSubstr("bytes"));
  EXPECT_THAT(refusal(head + std::string(4 * kNumbers + 4, '\0')), HasSubstr("bytes"));
  // A negative vocabulary: the output projection is a matrix of its own, at the end.
  put(folder_ / "m.bin", words({4, 3, 1, 2, 1, -5, 2}) + std::string(4 * (kNumbers + 20), '\0'));
  EXPECT_FALSE(open_llama2c(folder_ / "m.bin").model.tie_embeddings);
}

TEST_F(Llama2c, OfOtherSizesIsRefused) {
  EXPECT_THAT(refusal("short"), HasSubstr("28 bytes"));
  for (const std::string& head :
       {words({0, 3, 1, 2, 1, 5, 2}), words({4, -3, 1, 2, 1, 5, 2}), words({4, 3, 0, 2, 1, 5, 2}),
        words({4, 3, 1, 3, 1, 5, 2}), words({4, 3, 1, 2, 0, 5, 2}), words({4, 3, 1, 2, 1, 0, 2}),
        words({4, 3, 1, 2, 1, INT32_MIN, 2}), words({4, 3, 1, 2, 1, 5, -1}),
        words({1 << 20, 1 << 22, 4096, 1 << 10, 1 << 10, INT32_MAX, INT32_MAX})}) {
    EXPECT_THAT(refusal(head + std::string(4 * kNumbers, '\0')), HasSubstr("m.bin"));
  }
  EXPECT_THAT(refusal(words({0x616b3432, 2, 4, 3, 1, 2, 1, 5, 2}) + std::string(300, '\0')),
              HasSubstr("version 0 or 1"));
  EXPECT_THAT(refusal(words({0x616b3432, 1, 4, 3, 1, 2, 1, 5, 2})), HasSubstr("256 bytes"));
}

TEST_F(Llama2c, TokenizersHaveATokenForEachId) {
  const std::string one = words({0, 1}) + "a", two = words({0, 2}) + "bc";
  const auto refused = [&](const std::string& bytes) {
    put(folder_ / "tok.bin", bytes);
    return message_of<UserError>([&] { (void)read_llama2c_tokenizer(folder_ / "tok.bin", 2); });
  };
  put(folder_ / "tok.bin", words({2}) + one + two);
  EXPECT_THAT(read_llama2c_tokenizer(folder_ / "tok.bin", 2).json, HasSubstr("\"bc\": 1"));
  EXPECT_THAT(refused(words({2}) + one), HasSubstr("end of the file"));
  EXPECT_THAT(refused(words({2}) + one + two + "x"), HasSubstr("more"));
  EXPECT_THAT(refused(words({2}) + one + words({0, -1})), HasSubstr("token 1"));
  EXPECT_THAT(refused(words({2}) + one + words({0, 1000})), HasSubstr("token 1"));
  EXPECT_THAT(refused(words({2}) + one + one), HasSubstr("twice"));
  EXPECT_THAT(refused(words({2}) + one + words({0, 1}) + "\xff"), HasSubstr("UTF-8"));
}

}  // namespace
}  // namespace wavroute
