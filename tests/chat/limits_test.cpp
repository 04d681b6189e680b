// A hostile template ends with an error.
#include <gmock/gmock.h>

#include <string>

#include "tests/chat/rendered.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using testing::refusal;

std::string times(size_t count, const std::string& text) {
  std::string result;
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

TEST(Limits, OfLevelsInATemplate) {
  constexpr size_t kMany = 5000;
  for (const std::string& text :
       {"{{ " + times(kMany, "(") + "1" + times(kMany, ")") + " }}",
        "{{ " + times(kMany, "[") + "1" + times(kMany, "]") + " }}",
        "{{ " + times(kMany, "not ") + "1 }}", "{{ " + times(kMany, "-") + "1 }}",
        "{{ 1" + times(kMany, " + 1") + " }}", "{{ x" + times(kMany, ".y") + " }}",
        "{{ x" + times(kMany, "|trim") + " }}", "{{ 1" + times(kMany, " if 1 else 1") + " }}",
        "{{ x" + times(kMany, "()") + " }}",
        times(kMany, "{% if 1 %}") + times(kMany, "{% endif %}"),
        times(kMany, "{% set x %}") + times(kMany, "{% endset %}")}) {
    EXPECT_THAT(refusal(text), HasSubstr("levels in each other")) << text.substr(0, 40);
  }
}

TEST(Limits, OfLevelsInAValue) {
  EXPECT_THAT(refusal("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}"
                      "{% set ns.x = [ns.x] %}{% endfor %}"),
              HasSubstr("levels in each other"));
  const std::string nested = times(5000, "[") + times(5000, "]");
  EXPECT_THAT(refusal("x", "{\"messages\": " + nested + "}"), HasSubstr("levels in each other"));
  const auto levels = [](int count) { return times(count, "[") + times(count, "]"); };
  EXPECT_THAT(refusal("x", "{\"messages\": " + levels(101) + "}"),
              HasSubstr("levels in each other"));
  EXPECT_EQ(testing::rendered("x", "{\"messages\": " + levels(100) + "}"), "x");
}

TEST(Limits, OfTextsAndTime) {
  const std::string doubling =
      "{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}"
      "{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
  EXPECT_THAT(refusal(doubling), HasSubstr("texts of at most"));
  const std::string loops = times(5, "{% for i in range(100000) %}") + times(5, "{% endfor %}");
  EXPECT_THAT(refusal(loops), HasSubstr("a template that ends"));
  EXPECT_THAT(refusal("{{ 'x' * 1000000000 }}"), HasSubstr("repeated less often"));
  EXPECT_THAT(refusal("{{ range(1000000000) }}"), HasSubstr("range()"));
  // Ten levels of a list that holds the one before it ten times: 10^10 items to print.
  EXPECT_THAT(refusal("{% set ns = namespace(x=[1]) %}{% for i in range(10) %}"
                      "{% set ns.x = [" +
                      times(10, "ns.x, ") + "] %}{% endfor %}{{ ns.x }}"),
              ::testing::AnyOf(HasSubstr("texts of at most"), HasSubstr("a template that ends")));
}

TEST(Limits, OfATemplate) {
  EXPECT_THAT(refusal(std::string(1 << 19, 'x')), HasSubstr("a template of at most"));
  EXPECT_THAT(refusal("\xFF"), HasSubstr("expected UTF-8"));
}

}  // namespace
}  // namespace wavroute
