// What statements and expressions mean. The results follow from the documentation of Jinja and of
// Python; tests/python/test_chat_template.py compares many more with jinja2.
#include "chat/template.h"

#include <gmock/gmock.h>

#include "tests/chat/rendered.h"

namespace wavroute {
namespace {

using testing::refusal;
using testing::rendered;

constexpr const char* kTurns = R"({"messages": [{"role": "system", "content": "S"},
    {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]})";

TEST(ChatTemplate, RendersAConversation) {
  const ChatTemplate marks(
      "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] | trim }}"
      "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
      "{{ tools is none }}",
      "T");
  ChatInput input{.messages = {{"user", " Hi\n"}, {"assistant", "Ho"}}, .eos = "</s>"};
  EXPECT_EQ(marks.render(input), "<user>Hi</s><assistant>Ho</s><assistant>True");
  input.add_generation_prompt = false;
  input.bos = "<s>";
  EXPECT_EQ(marks.render(input), "<s><user>Hi</s><assistant>Ho</s>True");
}

TEST(ChatTemplate, SaysWhyItRefusesAConversation) {
  EXPECT_EQ(refusal("\n{{ raise_exception('Users first') }}"),
            "expected a conversation that the chat template takes, given one that it refuses: "
            "'Users first', in line 2 of T");
}

TEST(ChatTemplate, KnowsWhereALoopIs) {
  EXPECT_EQ(rendered("{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}"
                     "{{ loop.last }}{{ loop.length }}{{ loop.revindex }} {% endfor %}",
                     kTurns),
            "10TrueFalse33 21FalseFalse32 32FalseTrue31 ");
  EXPECT_EQ(rendered("{% for m in messages %}{{ loop.previtem.role if loop.previtem }}-"
                     "{{ loop.nextitem.role if loop.nextitem }} {% endfor %}",
                     kTurns),
            "-user system-assistant user- ");
}

TEST(ChatTemplate, FiltersALoop) {
  EXPECT_EQ(rendered("{% for m in messages if m.role != 'user' %}{{ loop.index }}{{ m.content }}"
                     "{% endfor %}",
                     kTurns),
            "1S2A");
  EXPECT_EQ(rendered("{% for m in messages if false %}x{% else %}none{% endfor %}", kTurns),
            "none");
}

TEST(ChatTemplate, MakesTuplesOfWhatAFilteredLoopTakesApart) {
  EXPECT_EQ(rendered("{% for a, b in [[1, 2], [3, 4]] %}{{ loop.nextitem }}{% endfor %}"),
            "[3, 4]");
  EXPECT_EQ(rendered("{% for a, b in [[1, 2], [3, 4]] if a %}{{ loop.nextitem }}{% endfor %}"),
            "(3, 4)");
}

TEST(ChatTemplate, LeavesALoop) {
  EXPECT_EQ(rendered("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
                     "{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
            "023");
}

TEST(ChatTemplate, ForgetsWhatAnIterationSetsButForANamespace) {
  EXPECT_EQ(
      rendered("{% set x = 0 %}{% set ns = namespace(x=0) %}{% for i in [1, 2] %}"
               "{% set x = x + i %}{% set ns.x = ns.x + i %}{{ x }}{% endfor %}{{ x }}{{ ns.x }}"),
      "1203");
}

TEST(ChatTemplate, KeepsWhatABranchSets) {
  EXPECT_EQ(rendered("{% if true %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}"),
            "1");
}

TEST(ChatTemplate, SetsABlock) {
  EXPECT_EQ(rendered("{% set x %}a{{ 1 }}{% endset %}[{{ x }}]"), "[a1]");
  EXPECT_EQ(rendered("{% set a, b = 'xy' %}{{ b }}{{ a }}"), "yx");
}

TEST(ChatTemplate, PrintsWhatTheModelIsToWrite) {
  EXPECT_EQ(rendered("{% generation %}{{ 'A' }}{% endgeneration %}!"), "A!");
}

TEST(ChatTemplate, PrintsValuesAsPythonDoes) {
  EXPECT_EQ(rendered("{{ none }} {{ true }} {{ 1.0 }} {{ 1e16 }} {{ 0.00001 }} {{ nothing }}|"),
            "None True 1.0 1e+16 1e-05 |");
  EXPECT_EQ(rendered(R"({{ [1, 'a', "it's", none] }} {{ {'k': (1,)} }} {{ () }})"),
            R"([1, 'a', "it's", None] {'k': (1,)} ())");
}

TEST(ChatTemplate, CalculatesAsPythonDoes) {
  EXPECT_EQ(
      rendered("{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 1 + true }}"),
      "3 -4 2 3.5 8 2");
  EXPECT_EQ(rendered("{{ 2 ** 3 ** 2 }}"), "64");  // Jinja's, from the left
  EXPECT_EQ(rendered("{{ 'a' + 'b' ~ 1 ~ none }} {{ 'ab' * 2 }} {{ [1] + [2] }}"),
            "ab1None abab [1, 2]");
}

TEST(ChatTemplate, ComparesAsPythonDoes) {
  EXPECT_EQ(
      rendered("{{ 1 < 2 < 3 }} {{ 1 < 2 > 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ 1 == '1' }}"),
      "True False True True False");
  EXPECT_EQ(rendered("{{ 'b' in 'abc' }} {{ 2 not in [1, 2] }} {{ 'k' in {'k': 1} }}"),
            "True False True");
  EXPECT_EQ(rendered("{{ 0 or 'x' }} {{ 0 and 'x' }} {{ not [] }} {{ '' or none }}"),
            "x 0 True None");
}

TEST(ChatTemplate, TakesPartsAsPythonDoes) {
  EXPECT_EQ(rendered("{{ [1, 2, 3][1:] }} {{ [1, 2, 3][::-1] }} {{ 'abc'[-2:] }} {{ 'abc'[0] }}"),
            "[2, 3] [3, 2, 1] bc a");
  EXPECT_EQ(rendered("{{ '\u00e9\u4e16'[1] }}{{ '\u4e16'|length }}"),
            "\u4e16"
            "1");  // characters
  EXPECT_EQ(rendered("{{ {'a': 1}.b is defined }} {{ [1][5] is defined }}"), "False False");
}

TEST(ChatTemplate, GivesNothingForAConditionThatFailsWithoutElse) {
  EXPECT_EQ(rendered("[{{ 'x' if false }}]"), "[]");
}

TEST(ChatTemplate, HasTheMethodsOfTexts) {
  EXPECT_EQ(
      rendered(
          "{{ ' a b '.strip() }}|{{ 'a,b'.split(',')[-1] }}|{{ 'xax'.strip('x') }}|"
          "{{ 'abc'.startswith('ab') }}|{{ 'Ab c'.title() }}|{{ 'a-a'.replace('a', 'b', 1) }}"),
      "a b|b|a|True|Ab C|b-a");
}

TEST(ChatTemplate, HasFilters) {
  EXPECT_EQ(rendered("{{ messages | map(attribute='content') | join('-') }} "
                     "{{ (messages | selectattr('role', 'equalto', 'user') | first).content }} "
                     "{{ messages | length }} {{ x | default('d') }} {{ ' 7 ' | int + 1 }}",
                     kTurns),
            "S-U-A U 3 d 8");
  EXPECT_EQ(rendered("{{ {'a': [1, 1.5, none, true], '\u00e9\"\\n': 'x'} | tojson }}"),
            "{\"a\": [1, 1.5, null, true], \"\u00e9\\\"\\n\": \"x\"}");
  EXPECT_EQ(rendered("{{ {'a': [1]} | tojson(indent=2) }}"), "{\n  \"a\": [\n    1\n  ]\n}");
}

TEST(ChatTemplate, ShowsTheDate) { EXPECT_EQ(rendered("{{ strftime_now('%Y') | length }}"), "4"); }

TEST(ChatTemplate, CanBeRenderedAgain) {
  const ChatTemplate twice("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}", "T");
  EXPECT_EQ(twice.render(ChatInput{}), "1");
  EXPECT_EQ(twice.render(ChatInput{}), "1");
}

}  // namespace
}  // namespace wavroute
