// The emulator finds what a GPU may hide.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/device.h"

namespace wavroute::kernels::cuda {
namespace {

using emulator::Order;
constexpr Order kOrders[] = {Order::kForwards, Order::kBackwards, Order::kShuffled};

class EmulatorTest : public ::testing::Test {
 protected:
  void TearDown() override { emulator::set_order(Order::kForwards); }
};

TEST_F(EmulatorTest, EveryThreadOfEveryBlockRunsOnce) {
  for (const Order order : kOrders) {
    emulator::set_order(order);
    std::vector<int> runs(3 * 64);
    emulator::run(3, 64, 0, [&] {
      EXPECT_EQ(blocks(), 3);
      EXPECT_EQ(threads(), 64);
      ++runs[static_cast<size_t>(block() * threads() + thread())];
    });
    EXPECT_TRUE(std::ranges::all_of(runs, [](int n) { return n == 1; }));
  }
}

TEST_F(EmulatorTest, LanesGiveNumbersToTheirOwnWarp) {
  std::vector<double> found(64);
  emulator::run(1, 64, 0,
                [&] { found[static_cast<size_t>(thread())] = from_lane(thread() + 0.5, 5); });
  for (int t = 0; t < 64; ++t) EXPECT_EQ(found[static_cast<size_t>(t)], (t ^ 5) + 0.5);
}

// Each thread takes its neighbour's number through shared memory.
std::vector<int> neighbours(Order order, bool has_barrier) {
  emulator::set_order(order);
  std::vector<int> found(64);
  emulator::run(1, 64, 64 * sizeof(int), [&] {
    int* const numbers = shared<int>();
    numbers[thread()] = -1;
    barrier();
    numbers[thread()] = thread();
    if (has_barrier) barrier();
    found[static_cast<size_t>(thread())] = numbers[(thread() + 1) % 64];
  });
  return found;
}

TEST_F(EmulatorTest, AMissingBarrierShowsInTheNumbers) {
  std::vector<int> expected(64);
  for (int t = 0; t < 64; ++t) expected[static_cast<size_t>(t)] = (t + 1) % 64;
  for (const Order order : kOrders) EXPECT_EQ(neighbours(order, true), expected);
  EXPECT_NE(neighbours(Order::kForwards, false), expected);
  EXPECT_NE(neighbours(Order::kForwards, false), neighbours(Order::kBackwards, false));
}

TEST_F(EmulatorTest, ABarrierThatSomeDoNotReachIsAnError) {
  const auto some_wait = [] {
    if (thread() < 40) barrier();
  };
  EXPECT_THROW(emulator::run(1, 64, 0, some_wait), std::logic_error);
}

TEST_F(EmulatorTest, AShuffleThatSomeLanesDoNotReachIsAnError) {
  const auto some_give = [] {
    if (thread() != 33) static_cast<void>(from_lane(1.0F, 1));
  };
  EXPECT_THROW(emulator::run(1, 64, 0, some_give), std::logic_error);
  const auto one_warp_gives = [] {
    if (thread() < kWarp) static_cast<void>(from_lane(1.0F, 1));
  };
  EXPECT_NO_THROW(emulator::run(1, 64, 0, one_warp_gives));
}

TEST_F(EmulatorTest, ABlockHasWholeWarps) {
  for (const int odd : {0, 31, 33, 1056}) {
    EXPECT_THROW(emulator::run(1, odd, 0, [] {}), std::logic_error);
  }
}

}  // namespace
}  // namespace wavroute::kernels::cuda
