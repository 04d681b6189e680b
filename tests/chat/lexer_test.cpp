// White space and tokens: the results are those that Jinja's documentation states for trim_blocks
// and lstrip_blocks.
#include "chat/lexer.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "tests/chat/rendered.h"

namespace wavroute {
namespace {

using testing::refusal;
using testing::rendered;

TEST(Lexer, DropsOneLineEndAfterAStatementAndAComment) {
  EXPECT_EQ(rendered("a{% if true %}\nb\n{% endif %}\n\nc"), "ab\n\nc");
  EXPECT_EQ(rendered("a{# c #}\nb"), "ab");
  EXPECT_EQ(rendered("{{ 1 }}\n{{ 2 }}"), "1\n2");  // not after what is printed
}

TEST(Lexer, DropsSpacesBeforeAStatementAtTheBeginningOfItsLine) {
  EXPECT_EQ(rendered("a\n  \t{% if true %}b{% endif %}"), "a\nb");
  EXPECT_EQ(rendered("  {% if true %}b{% endif %}"), "b");
  EXPECT_EQ(rendered("a  {% if true %}b{% endif %}"), "a  b");
  EXPECT_EQ(rendered("a\n  {{ 1 }}"), "a\n  1");
  EXPECT_EQ(rendered("a\n  {# c #}b"), "a\nb");
}

TEST(Lexer, TakesAllSpaceAlongWhereAMinusSaysSo) {
  EXPECT_EQ(rendered("a \n\n {%- if true -%} \n b {%- endif -%} \n c"), "abc");
  EXPECT_EQ(rendered("a \n {{- 1 -}} \n b"), "a1b");
  EXPECT_EQ(rendered("a \n {#- c -#} \n b"), "ab");
  EXPECT_EQ(rendered("a \xE3\x80\x80{{- 1 -}}\xC2\xA0 b"), "a1b");  // U+3000, U+00A0
}

TEST(Lexer, LeavesSpaceWhereAPlusSaysSo) {
  EXPECT_EQ(rendered("a\n  {%+ if true +%}\nb{% endif %}"), "a\n  \nb");
}

TEST(Lexer, DropsOneLineEndAtTheEndAndReadsAnyLineEnds) {
  EXPECT_EQ(rendered("a\n"), "a");
  EXPECT_EQ(rendered("a\n\n"), "a\n");
  EXPECT_EQ(rendered("a\r\nb\rc\r\n"), "a\nb\nc");
  EXPECT_EQ(rendered(""), "");
}

TEST(Lexer, LeavesWhatIsRawAlone) {
  EXPECT_EQ(rendered("{% raw %}{{ a }} {% if %}{% endraw %}b"), "{{ a }} {% if %}b");
  EXPECT_EQ(rendered("{% raw -%} \n a {%- endraw -%} \n b"), "ab");
}

TEST(Lexer, ReadsTextsWithPythonsEscapes) {
  EXPECT_EQ(rendered(R"({{ 'a\n\t\\\'\x41\u00e9\101\d' }})"),
            "a\n\t\\'A\xC3\xA9"
            "A\\d");
  EXPECT_EQ(rendered(R"({{ 'a' "b" 'c' }})"), "abc");
  EXPECT_THAT(refusal(R"({{ '\ud800' }})"), ::testing::HasSubstr("number of a character"));
  EXPECT_THAT(refusal(R"({{ '\N{DASH}' }})"), ::testing::HasSubstr("a backslash before"));
}

TEST(Lexer, ReadsNumbers) {
  EXPECT_EQ(rendered("{{ 1_000 }} {{ 00 }} {{ 1.5e3 }} {{ 2e-7 }} {{ 1_0.2_5 }}"),
            "1000 0 1500.0 2e-07 10.25");
  EXPECT_EQ(rendered("{{ [[1, 2]].0.1 }}"), "2");
}

TEST(Lexer, GivesEveryTokenItsLine) {
  chat::Work work("T");
  std::vector<size_t> lines;
  for (const auto& token : chat::read_tokens("a\n{{ b\n}}\n{# \n #}{% c %}", work)) {
    lines.push_back(token.line);
  }
  // text, {{, b, }}, text, {%, c, %}, the end
  EXPECT_THAT(lines, ::testing::ElementsAre(1, 2, 2, 3, 3, 5, 5, 5, 5));
}

}  // namespace
}  // namespace wavroute
