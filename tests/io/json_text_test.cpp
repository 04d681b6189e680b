#include "io/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::message_of;
using testing::put;
using testing::TemporaryFolder;

std::string refusal(const std::string& text, const JsonLimits& limits = {}) {
  return message_of<UserError>([&] { (void)parse_json(text, "a.json", limits); });
}

std::string repeated(std::string_view part, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += part;
  return text;
}

// The library's own parser decides what is valid.
TEST(ParseJson, GivesWhatTheLibraryGivesForValidText) {
  for (const std::string text :
       {R"({"a": [1, -2, 0.5, 1e-400, true, false, null, "x"], "b": {"c": {}}, "": []})", "3",
        "\"\"", "\xEF\xBB\xBF[1]", R"("\u00e9\ud83d\ude00 \u0000")", "18446744073709551615",
        "-9223372036854775808", " [ ] \n", R"([{"a":1},{"a":2}])"}) {
    EXPECT_EQ(parse_json(text, "x"), json::parse(text)) << text;
  }
}

TEST(ParseJson, NamesTheLineOfASyntaxError) {
  EXPECT_THAT(refusal("{\"a\": 1,\n\n \"b\": }"),
              HasSubstr("expected JSON, given '}', in a.json:3"));
  EXPECT_THAT(refusal("[1,\n2\n]\n x"), HasSubstr("given 'x', in a.json:4"));
  EXPECT_THAT(refusal("{\"loss\": NaN}"), HasSubstr("given 'NaN}', in a.json:1"));
  EXPECT_THAT(refusal("[1\n,]"), HasSubstr("a.json:2"));
  EXPECT_THAT(refusal("[\"a\nb\"]"), HasSubstr("given the end of a line, in a.json:1"));
}

TEST(ParseJson, ACutTextIsSaidToEndTooEarly) {
  for (const std::string text : {"", "\n", "{", "{\"a\"", "{\"a\": [1, 2\n", "\"abc", "[tru"}) {
    EXPECT_THAT(refusal(text), HasSubstr("given its end too early, in a.json:1")) << text;
  }
}

TEST(ParseJson, RefusesAKeyTwiceAndZeroBytesAndBytesThatAreNoUtf8) {
  EXPECT_THAT(refusal("{\"a\": 1,\n\"b\": {\"a\": 2},\n\"a\": 3}"),
              HasSubstr("the key 'a' twice in one object, in a.json:3"));
  EXPECT_THAT(refusal(std::string("{}\n\0x", 5)), HasSubstr("a zero byte, in a.json:2"));
  EXPECT_THAT(refusal("[\n\"\xE9\"]"), HasSubstr("bytes that are no UTF-8, in a.json:2"));
}

TEST(ParseJson, RefusesNumbersThatNoTypeHolds) {
  const std::vector<std::string> numbers = {"1e999", "-1e999", "18446744073709551616",
                                            "-9223372036854775809", "1" + repeated("0", 400)};
  for (const std::string& text : numbers) {
    EXPECT_THAT(refusal("[\n" + text + "\n]"),
                HasSubstr("a number out of range, '" + text.substr(0, 120)))
        << text;
    EXPECT_THAT(refusal("[\n" + text + "\n]"), HasSubstr("a.json:2")) << text;
  }
}

TEST(ParseJson, BoundsNestingOfListsAndObjectsAlike) {
  const int depth = JsonLimits{}.depth;
  EXPECT_NO_THROW((void)parse_json(repeated("[", depth) + repeated("]", depth), "x"));
  EXPECT_THAT(refusal(repeated("[", depth + 1) + repeated("]", depth + 1)),
              HasSubstr("lists and objects more than 64 deep in each other, in a.json:1"));
  // Deep enough to end a process whose reader calls itself for each.
  EXPECT_THAT(refusal(repeated("[", 1000000)), HasSubstr("64 deep"));
  EXPECT_THAT(refusal(repeated("{\"a\":", 1000000)), HasSubstr("64 deep"));
  EXPECT_THAT(refusal(repeated("[{\"a\":", 1000000)), HasSubstr("64 deep"));
}

TEST(ParseJson, BoundsTheSizeOfTheTextAndTheNumberOfValues) {
  EXPECT_THAT(refusal("[1, 2]", {.bytes = 5}), HasSubstr("at most 5 bytes of JSON, given 6"));
  EXPECT_NO_THROW((void)parse_json("[1, 2]", "x", {.values = 3}));
  EXPECT_THAT(refusal("[1, 2]", {.values = 2}), HasSubstr("more than 2 values"));
}

TEST(ParseJson, ShowsNothingThatATerminalWouldObey) {
  EXPECT_THAT(refusal("[\x1b[2J]"), HasSubstr("given '\\x1b[2J]'"));
  EXPECT_THAT(refusal(R"({"\u001b[2J": 1, "\u001b[2J": 2})"), HasSubstr("'\\x1b[2J' twice"));
}

TEST(ParseJson, CountsTheLinesOfALargerFile) {
  EXPECT_THAT(message_of<UserError>([] { (void)parse_json_line("{", "m.jsonl", 17); }),
              HasSubstr("m.jsonl:17"));
}

TEST(ReadJson, RefusesALargeFileByItsSizeAndNamesADamagedOne) {
  const TemporaryFolder folder;
  put(folder / "large", "");
  std::filesystem::resize_file(folder / "large", uint64_t{1} << 40);  // sparse: reading takes hours
  EXPECT_THAT(message_of<UserError>([&] { (void)read_json(folder / "large"); }),
              HasSubstr("given 1099511627776, in " + (folder / "large").string()));
  put(folder / "cut", "{\"a\":\n 1");
  EXPECT_THAT(message_of<UserError>([&] { (void)read_json(folder / "cut"); }),
              HasSubstr((folder / "cut").string() + ":2"));
}

}  // namespace
}  // namespace wavroute
