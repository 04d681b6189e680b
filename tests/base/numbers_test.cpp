#include "base/numbers.h"

#include <gtest/gtest.h>

#include "wavroute/error.h"

namespace wavroute {
namespace {

TEST(Numbers, AreRoundedAndGrouped) {
  EXPECT_EQ(format_count(999.6), "1,000");
  EXPECT_EQ(format_count(1234567.0), "1,234,567");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1.5 * 1024 * 1024 * 1024), "1.50 GiB");
  EXPECT_EQ(format_magnitude(201e6), "201M");
  EXPECT_EQ(format_magnitude(999.9e6), "1.00G");
  EXPECT_EQ(format_duration(59.6), "01:00");
  EXPECT_EQ(format_duration(3723), "1:02:03");
}

TEST(Quantile, IsLinearBetweenNeighbours) {
  EXPECT_DOUBLE_EQ(quantile({40, 10, 30, 20, 50}, 0.5), 30);
  EXPECT_DOUBLE_EQ(quantile({40, 10, 30, 20, 50}, 0.2), 18);  // 10 + 0.8 * (20 - 10)
  EXPECT_DOUBLE_EQ(quantile({40, 10, 30, 20, 50}, 0.8), 42);  // 40 + 0.2 * (50 - 40)
  EXPECT_DOUBLE_EQ(quantile({7}, 0.8), 7);
  EXPECT_THROW((void)quantile({}, 0.5), Failure);
}

}  // namespace
}  // namespace wavroute
