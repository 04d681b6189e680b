#include "base/lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(LinesOf, EndInEitherWayOrInNone) {
  EXPECT_THAT(lines_of("a\nb\r\n\nc"), ElementsAre("a", "b", "", "c"));
  EXPECT_THAT(lines_of("a\n"), ElementsAre("a"));
  EXPECT_THAT(lines_of("\r\n\r"), ElementsAre("", ""));
  EXPECT_THAT(lines_of(""), IsEmpty());
}

}  // namespace
}  // namespace wavroute
