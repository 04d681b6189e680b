#include "data/stop_text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace wavroute {
namespace {

// What StopText shows of `text`, given in pieces of `length` bytes.
std::string shown(const std::vector<std::string>& stops, const std::string& text, size_t length) {
  StopText stop(stops);
  std::string result;
  for (size_t at = 0; at < text.size(); at += length) result += stop.feed(text.substr(at, length));
  return result + stop.finish();
}

TEST(StopText, EndsBeforeTheFirstStopHoweverTheTextArrives) {
  const std::string text = "one, two, three, two";
  for (size_t length = 1; length <= text.size(); ++length) {
    SCOPED_TRACE(length);
    EXPECT_EQ(shown({"two"}, text, length), "one, ");
    EXPECT_EQ(shown({"three", "two"}, text, length), "one, ");
    EXPECT_EQ(shown({", th"}, text, length), "one, two");
    EXPECT_EQ(shown({"four", "two, two"}, text, length), text);
    EXPECT_EQ(shown({}, text, length), text);
    EXPECT_EQ(shown({""}, text, length), text);
  }
}

TEST(StopText, ABeginningThatIsBrokenOffIsShown) {
  for (size_t length = 1; length <= 8; ++length) {
    EXPECT_EQ(shown({"aab"}, "aaaab", length), "aa");
    EXPECT_EQ(shown({"abc"}, "ababd ab", length), "ababd ab");
  }
}

TEST(StopText, HoldsBackNoMoreThanABeginning) {
  StopText stop({"END"});
  EXPECT_EQ(stop.feed("text E"), "text ");
  EXPECT_EQ(stop.feed("N"), "");
  EXPECT_EQ(stop.feed("T"), "ENT");
  EXPECT_EQ(stop.feed("END more"), "");
  EXPECT_TRUE(stop.has_stopped());
  EXPECT_EQ(stop.feed("more"), "");
  EXPECT_EQ(stop.finish(), "");
}

}  // namespace
}  // namespace wavroute
