#include "base/toml_bounds.h"

#include <gtest/gtest.h>

#include <string>

#include "wavroute/error.h"

namespace wavroute {
namespace {

std::string refusal(const std::string& text) {
  try {
    check_toml_bounds(text, "a.toml");
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TomlBounds, TakeEveryFormThatAConfigurationHas) {
  const std::string text = R"(# a comment . . . . . . . . . . with [. and "
name = "a.b.c.d.e.f.g.h.i.j.k [."   # another '
path = 'C:\a.b.c.d.e.f.g.h.i.j'
long = """
[.no header here, a.b.c.d.e.f.g.h.i.j
\""" still """
literal = '''
[. "
'''
[model]
betas = [0.9, 0.95, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
lists = [
  [1.5, 2],
  [],
  [ "[." ],
]
[ "quoted". name . c ]
[[compare.variant]]
a = {b.c = 1, d.e = 2, f.g = 3, h.i = 4, j.k = 5}
)";
  EXPECT_EQ(refusal(text), "accepted");
  EXPECT_EQ(refusal("\xEF\xBB\xBF[a]\r\nb=1\r\n"), "accepted");
  EXPECT_EQ(refusal("["), "accepted");  // the parser reports it
  EXPECT_EQ(refusal("[]"), "accepted");
}

TEST(TomlBounds, RefuseLongDottedKeysWithTheirLine) {
  const std::string expected = "expected keys of at most 8 parts, given a longer dotted key, ";
  std::string key = "a";
  for (int i = 0; i < 8; ++i) key += " . \"a.\"";
  EXPECT_EQ(refusal("x=1\n" + key + "=1"), expected + "a.toml:2");
  EXPECT_EQ(refusal("\n\n[" + key + "]"), expected + "a.toml:3");
  EXPECT_EQ(refusal("x = [\n1.0,\n{" + key + "=1}]"), expected + "a.toml:3");
  EXPECT_EQ(refusal("x=\"\"\"\n\n\"\"\"\n" + key + "=1"), expected + "a.toml:4");
}

TEST(TomlBounds, RefuseAHeaderWithoutAName) {
  for (const std::string header : {"[.a]", "[[[a]]]", "[ [[a", "[=]", "[[\n", "[\xC3\xA9]", "[#"}) {
    EXPECT_EQ(refusal("x=1\n \t" + header),
              "expected the name of a table after '[', given something else, a.toml:2")
        << header;
  }
  EXPECT_EQ(refusal("\xEF\xBB\xBF[.a]").substr(0, 8), "expected");
  EXPECT_EQ(refusal("a = [\"\"\"x\"\"\"\", 1]\n[.b]").substr(0, 8), "expected");  // ends in a quote
}

// toml++ 3.3 has undefined behaviour for such a letter, so that none may reach it.
TEST(TomlBounds, RefuseCharactersBeyondAsciiWhereTheyStandForThemselves) {
  const std::string given = ", given another character, a.toml:2";
  for (const std::string text : {"caf\xC3\xA9 = 1", "a = \xC3\xA9", "a = 1 \xCE\x8D", "\xC2\xA0"}) {
    EXPECT_EQ(refusal("x=1\n" + text), "expected ASCII outside strings and comments" + given)
        << text;
  }
  EXPECT_EQ(refusal("\na = \"\\\xC3\xA9\""), "expected an ASCII character after '\\'" + given);
  const std::string continued = "expected an ASCII character where a line continues after '\\'";
  EXPECT_EQ(refusal("a = \"\"\"b\\ \n\xC3\xA9\"\"\""), continued + given);
  EXPECT_EQ(refusal("a = \"\"\"b\\\t\xC2\xA0\n\"\"\"").substr(0, continued.size()), continued);
  EXPECT_EQ(refusal("a = \"\"\"\xC3\xA9\\\n b\xC3\xA9\"\"\" # \xC3\xA9\nb='\xC3\xA9\\'"),
            "accepted");
}

TEST(TomlBounds, RefuseATextLargerThanAnyConfiguration) {
  EXPECT_EQ(refusal(std::string((1 << 20) + 1, '\n')),
            "expected at most 1048576 bytes of TOML, given 1048577, a.toml");
}

}  // namespace
}  // namespace wavroute
