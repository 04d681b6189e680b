// What lies outside the subset, and what is wrong, is named with its line.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "tests/chat/rendered.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using testing::refusal;
using ::testing::StartsWith;

struct Case {
  std::string text;
  std::string named;  // in the message
};

void expect_refusals(const std::vector<Case>& cases, const std::string& beginning) {
  for (const Case& one : cases) {
    const std::string message = refusal("line\n{{ 'line' }}\n" + one.text);
    EXPECT_THAT(message, StartsWith(beginning)) << one.text;
    EXPECT_THAT(message, HasSubstr(one.named)) << one.text;
    EXPECT_THAT(message, HasSubstr("in line 3 of T")) << one.text;
  }
}

TEST(Refusals, NameStatementsOutsideTheSubset) {
  expect_refusals({{"{% include 'x' %}", "the statement 'include'"},
                   {"{% macro f() %}{% endmacro %}", "the statement 'macro'"},
                   {"{% block x %}{% endblock %}", "the statement 'block'"},
                   {"{% with x = 1 %}{% endwith %}", "the statement 'with'"},
                   {"{% filter upper %}{% endfilter %}", "the statement 'filter'"},
                   {"{% nonsense %}", "the statement 'nonsense'"},
                   {"{% for x in [] recursive %}{% endfor %}", "a recursive loop"},
                   {"{% set x | upper %}a{% endset %}", "a filter of a set block"},
                   {"{% for loop in [1] %}{% endfor %}", "an assignment to 'loop'"}},
                  "expected what wavroute renders of Jinja, given ");
}

TEST(Refusals, NameExpressionsOutsideTheSubset) {
  expect_refusals({{"{{ 'a' | indent }}", "the filter 'indent'"},
                   {"{{ 'a' | safe }}", "the filter 'safe'"},
                   {"{{ 1 is escaped }}", "the test 'escaped'"},
                   {"{{ 'a'.center(3) }}", "'center' of the text 'a'"},
                   {"{{ [1].append(2) }}", "'append' of a list"},
                   {"{{ {}.update({}) }}", "'update' of a dict"},
                   {"{{ ''.__class__ }}", "'__class__' of the text ''"},
                   {"{{ 'a %s' % 1 }}", "% of a text"},
                   {"{{ range(*[1]) }}", "arguments with * or **"},
                   {"{{ [1][0, 1] }}", "a subscript of several parts"},
                   {"{{ 0x10 }}", "a number that is not decimal"},
                   {"{{ 9223372036854775807 + 1 }}", "an integer beyond 64 bits"},
                   {"{{ 1e308 * 10 }}", "a number that is not finite"},
                   {"{{ '\u00e9' | upper }}", "upper and lower case beyond ASCII"},
                   {"{{ ['\u00e9'] }}", "a text beyond ASCII in a printed list or dict"},
                   {"{{ namespace() }}", "a namespace as a text"},
                   {"{{ [namespace()] }}", "a namespace in a container"},
                   {"{{ [1] | map('string') }}", "a generator as a text"},
                   {"{{ pad_token }}", "the variable 'pad_token'"},
                   {"{{ strftime_now('%Q') }}", "strftime_now('%Q')"}},
                  "expected what wavroute renders of Jinja, given ");
}

TEST(Refusals, NameWhatWouldBeDifferentInJinja) {
  // A loop that sees nothing in Jinja, because the name is the template's from its beginning on.
  expect_refusals(
      {{"{% for i in [1] %}{{ x }}{% endfor %}{% set x = 1 %}", "'x', which is set further down"},
       {"{% set g = [1] | select %}{{ g | list }}{{ g | list }}", "a generator that is read twice"},
       {"{% set ns = namespace(a=1) %}{% for i in [1] if ns.a %}{% endfor %}",
        "a namespace in the condition of a loop"}},
      "expected what wavroute renders of Jinja, given ");
}

TEST(Refusals, SayWhereJinjaWouldStopAsWell) {
  expect_refusals({{"{{ x.y }}", "'x', which is undefined"},
                   {"{{ 'a' + 1 }}", "values that + takes, given the text 'a' and the number 1"},
                   {"{{ 1 < 'a' }}", "an order"},
                   {"{{ 1 // 0 }}", "a divisor"},
                   {"{{ 1 in 2 }}", "values that in takes"},
                   {"{{ nothing() }}", "a function or a method"},
                   {"{{ {[]: 1} }}", "a key that is a text or a number"},
                   {"{{ {} | tojson(no=1) }}", "an argument that the filter 'tojson' has"},
                   {"{% set x.y = 1 %}", "a namespace to assign to"},
                   {"{% set a, b = [1] %}", "2 values to assign, given 1"},
                   {"{% for x in 1 %}{% endfor %}", "what has items"}},
                  "expected ");
}

TEST(Refusals, SayWhatIsMissingInATemplate) {
  expect_refusals({{"{% if x %}", "'endif', given the end of the template"},
                   {"{{ x", "the end of the tag, }}, given the end of the template"},
                   {"{# x", "the end of a comment, #}"},
                   {"{{ 'x }}", "the end of a text in quotes"},
                   {"{% raw %}", "{% endraw %}"},
                   {"{% endfor %}", "a statement that begins here, given 'endfor'"},
                   {"{% break %}", "a loop around 'break'"},
                   {"{{ (1 }}", "brackets in pairs"},
                   {"{{ }}", "an expression, given the end of the tag"},
                   {"{{ a b }}", "the end of the tag, }}, given 'b'"},
                   {"{{ a ? b }}", "a token of Jinja, given '?'"},
                   {"{% set 1 = 2 %}", "a name to assign to"}},
                  "expected ");
}

}  // namespace
}  // namespace wavroute
