#include "wavroute/error.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace wavroute {
namespace {

TEST(Expectation, SaysWhatWasExpectedWhatWasGivenAndWhere) {
  EXPECT_EQ(expectation("a step", "'x'", "in a.toml:3"), "expected a step, given 'x', in a.toml:3");
  EXPECT_EQ(expectation("at least 2 tokens", size_t{1}), "expected at least 2 tokens, given 1");
  EXPECT_EQ(expectation("a top-p", 1.5), "expected a top-p, given 1.5");
  EXPECT_EQ(expectation("text", std::string_view("bytes")), "expected text, given bytes");
  const UserError error = expected("a", std::string("b"), {}, "c");
  EXPECT_EQ(std::string(error.what()), "expected a, given b");
  EXPECT_EQ(error.hint(), "c");
}

}  // namespace
}  // namespace wavroute
