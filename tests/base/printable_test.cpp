#include "base/printable.h"

#include <gtest/gtest.h>

#include <string>

namespace wavroute {
namespace {

TEST(TerminalText, LeavesOrdinaryTextOfAnyLanguageAlone) {
  const std::string text = "größe \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80\ta\nb \\ ' \"";
  EXPECT_EQ(terminal_text(text), text);
  EXPECT_EQ(terminal_text(""), "");
}

TEST(TerminalText, ShowsWhatATerminalWouldObey) {
  EXPECT_EQ(terminal_text("\x1b[2Ja"), "\\x1b[2Ja");
  EXPECT_EQ(terminal_text("a\rb\x07\x7f"), "a\\x0db\\x07\\x7f");
  EXPECT_EQ(terminal_text(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(terminal_text("\xC2\x9B"
                          "31m"),
            "\\u009b31m");                                    // CSI as one character
  EXPECT_EQ(terminal_text("\xE2\x80\xAEgpj"), "\\u202egpj");  // written backwards
  EXPECT_EQ(terminal_text("\xE2\x81\xA6x\xE2\x80\xA8"), "\\u2066x\\u2028");
}

// A zero-width space, and a tag: letters that nobody sees. Joiners and soft hyphens are of a text.
TEST(TerminalText, ShowsCharactersWithoutAWidthButForTheJoiners) {
  EXPECT_EQ(terminal_text("a\xE2\x80\x8B"
                          "b"),
            "a\\u200bb");
  EXPECT_EQ(terminal_text("a\xF3\xA0\x81\x81"
                          "b"),
            "a\\U000e0041b");
  const std::string family = "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7";
  EXPECT_EQ(terminal_text(family), family);
  EXPECT_EQ(terminal_text("co\xC2\xADop"), "co\xC2\xADop");
}

TEST(TerminalText, ShowsBytesThatAreNoUtf8) {
  EXPECT_EQ(terminal_text("a\xE9"), "a\\xe9");  // Latin-1
  EXPECT_EQ(terminal_text("\x9B"
                          "31m"),
            "\\x9b31m");  // CSI of an 8-bit terminal
  EXPECT_EQ(terminal_text("\xE2\x82"
                          "a"),
            "\\xe2\\x82"
            "a");                                      // a character cut short
  EXPECT_EQ(terminal_text("\xC0\x9B"), "\\xc0\\x9b");  // an overlong ESC
}

TEST(Printable, QuotesOnOneLineAndCutsAtACharacter) {
  EXPECT_EQ(printable("a\nb\tc"), "'a\\nb\\tc'");
  const std::string longest(120, 'x'), shorter(119, 'x');
  EXPECT_EQ(printable(longest), "'" + longest + "'");
  EXPECT_EQ(printable(shorter + "\xC3\xA9z"), "'" + shorter + "...'");
}

}  // namespace
}  // namespace wavroute
