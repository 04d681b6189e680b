#include "base/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace wavroute {
namespace {

bool is_surrogate(uint32_t code_point) { return code_point >= 0xD800 && code_point < 0xE000; }

TEST(Utf8, EveryCodePointComesBackFromItsBytes) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    if (is_surrogate(code_point)) continue;
    std::string bytes;
    append_utf8(bytes, code_point);
    const Utf8Step step = utf8_step(bytes, 0);
    ASSERT_EQ(step.state, Utf8State::kComplete) << code_point;
    ASSERT_EQ(step.code_point, code_point);
    ASSERT_EQ(step.length, bytes.size());
  }
}

// Of all strings of two and three bytes, as many begin a code point of that length as there are of
// it: none comes in an overlong form, and no surrogate does.
TEST(Utf8, NothingElseIsACodePoint) {
  int64_t two = 0, three = 0;
  for (int lead = 0xC0; lead < 0x100; ++lead) {
    for (int second = 0; second < 0x100; ++second) {
      const std::string pair = {static_cast<char>(lead), static_cast<char>(second)};
      const Utf8Step step = utf8_step(pair, 0);
      if (step.state == Utf8State::kComplete) ++two;
      if (step.state != Utf8State::kTruncated || lead >= 0xF0) continue;
      for (int third = 0; third < 0x100; ++third) {
        const Utf8Step whole = utf8_step(pair + static_cast<char>(third), 0);
        if (whole.state == Utf8State::kComplete && whole.length == 3) ++three;
      }
    }
  }
  EXPECT_EQ(two, 0x800 - 0x80);
  EXPECT_EQ(three, 0x10000 - 0x800 - 0x800);
}

TEST(Utf8, ABrokenCharacterIsAsLongAsItIsWellFormed) {
  struct Case {
    std::string text;
    Utf8State state;
    size_t length;
  };
  using enum Utf8State;
  for (const Case& c : {Case{"\xE2\x82", kTruncated, 2}, Case{"\xE2\x82x", kInvalid, 2},
                        Case{"\xF0\x9F\x98", kTruncated, 3}, Case{"\xF0\x8F\x98", kInvalid, 1},
                        Case{"\xF4\x90\x80\x80", kInvalid, 1}, Case{"\xED\xA0\x80", kInvalid, 1},
                        Case{"\xC0\x80", kInvalid, 1}, Case{"\x80", kInvalid, 1},
                        Case{"\xC3", kTruncated, 1}, Case{"\xFF", kInvalid, 1}}) {
    const Utf8Step step = utf8_step(c.text, 0);
    EXPECT_EQ(step.state, c.state) << testing::PrintToString(c.text);
    EXPECT_EQ(step.length, c.length) << testing::PrintToString(c.text);
  }
}

TEST(DisplayWidth, CountsColumns) {
  EXPECT_EQ(display_width("wav \xC2\xB1"), 5U);
  EXPECT_EQ(display_width("\xE4\xB8\xAD\xE6\x96\x87"), 4U);  // two wide characters
  EXPECT_EQ(display_width("e\xCC\x81"), 1U);                 // an accent over the e
  EXPECT_EQ(display_width("a\xFF"), 2U);                     // a byte that is no UTF-8
}

}  // namespace
}  // namespace wavroute
