// The rotations of positions.
#include "ops/rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace wavroute::ops {
namespace {

constexpr int64_t kWidth = 6;

TEST(RopeRows, AreThoseOfATableWhateverWasAskedBefore) {
  RopeRows rows(rope_frequencies(kWidth, 10000.0), 1.0, at::kFloat);
  const RopeTable all = rope_table(0, 300, kWidth, 10000.0, at::kFloat);
  for (const auto& [first, length] :
       {std::pair<int64_t, int64_t>{0, 9}, {9, 1}, {0, 0}, {200, 100}, {3, 5}}) {
    const RopeTable found = rows.of(first, length);
    EXPECT_TRUE(at::equal(found.cos, all.cos.narrow(0, first, length))) << first;
    EXPECT_TRUE(at::equal(found.sin, all.sin.narrow(0, first, length))) << first;
  }
}

TEST(RopeRows, AreMadeForTheLengthInUseAndDoubled) {
  RopeRows rows(rope_frequencies(kWidth, 10000.0), 1.0, at::kFloat);
  const auto made = [](const RopeTable& view) {
    return view.cos.storage().nbytes() / (sizeof(float) * kWidth / 2);
  };
  EXPECT_EQ(made(rows.of(0, 10)), 10U);
  const RopeTable next = rows.of(10, 1);  // a token at a time must not make a table each
  EXPECT_EQ(made(next), 20U);
  EXPECT_EQ(rows.of(19, 1).cos.storage().data(), next.cos.storage().data());
  EXPECT_EQ(made(rows.of(0, 100)), 100U);
}

}  // namespace
}  // namespace wavroute::ops
