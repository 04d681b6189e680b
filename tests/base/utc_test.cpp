#include "base/utc.h"

#include <gtest/gtest.h>

namespace wavroute {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

std::string at(int64_t ms) { return format_utc(system_clock::time_point(milliseconds(ms))); }

TEST(Utc, SecondsOfTheEpochAreTheCalendarsDates) {
  EXPECT_EQ(at(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(at(951'827'696'000), "2000-02-29T12:34:56Z");
  EXPECT_EQ(at(4'102'444'799'000), "2099-12-31T23:59:59Z");
}

TEST(Utc, FractionsOfASecondAreCutNotRounded) {
  EXPECT_EQ(at(1'999), "1970-01-01T00:00:01Z");
  EXPECT_EQ(at(-1), "1969-12-31T23:59:59Z");
}

TEST(Utc, IsWhateverTheTimeZone) {
  ASSERT_EQ(::setenv("TZ", "UTC+7", 1), 0);
  ::tzset();
  EXPECT_EQ(at(0), "1970-01-01T00:00:00Z");
  ::unsetenv("TZ");
  ::tzset();
}

}  // namespace
}  // namespace wavroute
