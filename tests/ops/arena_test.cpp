// The memory of a step.
#include "ops/arena.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

namespace wavroute::ops {
namespace {

uintptr_t address(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
}

TEST(Arena, GivesMemoryThatCameBackToTheNextOfItsSize) {
  Arena arena;
  at::Tensor first = arena.empty({3, 5}, at::kFloat);
  const uintptr_t place = address(first);
  const at::Tensor second = arena.empty({3, 5}, at::kFloat);
  EXPECT_NE(address(second), place);
  first.reset();
  EXPECT_EQ(address(arena.empty({15}, at::kFloat)), place);
  EXPECT_EQ(address(arena.empty({30}, at::kBFloat16)), place);
  EXPECT_EQ(arena.misses(), 2);
}

TEST(Arena, KeepsMemoryAsLongAsAViewOfIt) {
  Arena arena;
  at::Tensor whole = arena.empty({4, 4}, at::kFloat);
  const at::Tensor row = whole[2];
  const uintptr_t place = address(whole);
  whole.reset();
  EXPECT_NE(address(arena.empty({4, 4}, at::kFloat)), place);
}

TEST(Arena, OutlivesItselfInItsTensors) {
  at::Tensor tensor;
  {
    Arena arena;
    tensor = arena.empty({1000, 1000}, at::kFloat);
  }
  tensor.fill_(2.0);
  EXPECT_EQ(tensor.sum().item<float>(), 2e6F);
}

TEST(Arena, GivesDisjointAlignedTensorsOfAnySize) {
  Arena arena;
  std::vector<at::Tensor> tensors;
  for (const int64_t size : {0, 1, 17, 1000, 3'000'000, 20'000'000, 1, 64}) {
    tensors.push_back(arena.empty({size}, at::kFloat));
    EXPECT_EQ(address(tensors.back()) % 64, 0U);
    tensors.back().fill_(static_cast<double>(tensors.size()));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_TRUE((tensors[i] == static_cast<double>(i + 1)).all().item<bool>()) << i;
  }
}

TEST(Arena, KeepsNoMoreThanThriceTheLargestPassOfAProcessWhosePassesDiffer) {
  Arena arena;
  constexpr int64_t kMegabyte = 1 << 20, kSlabs = 48 * kMegabyte;
  for (int64_t pass = 1; pass <= 200; ++pass) {
    arena.begin_pass();
    const at::Tensor a = arena.empty({(pass * 7 % 31 + 10) * kMegabyte + pass}, at::kByte);
    const at::Tensor b = arena.empty({pass}, at::kByte);
    EXPECT_LE(arena.bytes(), 4 * 41 * kMegabyte + kSlabs) << pass;
  }
}

TEST(Arena, TakesNothingForPassesOfAFewSizesAfterTheFirstOfEach) {
  Arena arena;
  const auto run = [&](int64_t size) {
    arena.begin_pass();
    const at::Tensor a = arena.empty({size}, at::kByte), b = arena.empty({size / 2}, at::kByte);
  };
  const auto round = [&] {  // training passes, the rest of a batch, and an evaluation
    for (int i = 0; i < 3; ++i) run(100'000'000);
    run(60'000'000);
    run(80'000'000);
  };
  round();
  const int64_t misses = arena.misses();
  for (int i = 0; i < 5; ++i) round();
  EXPECT_EQ(arena.misses(), misses);
}

// A model may be read by several threads, each in passes of its own.
TEST(Arena, ServesPassesOfSeveralThreadsAtOnce) {
  Arena arena;
  std::atomic<bool> right = true, stop = false;
  std::thread other([&] {
    while (!stop) {
      const at::Tensor a = arena.empty({16}, at::kFloat);
      float* const first = a.mutable_data_ptr<float>();
      *first = 7.0F;
      if (arena.bytes() < 0 || *first != 7.0F) right = false;
    }
  });
  for (int64_t pass = 0; pass < 10000; ++pass) {  // no two alike: every few, the arena starts anew
    arena.begin_pass();
    static_cast<void>(arena.empty({40'000'000 + 64 * pass}, at::kByte));
  }
  stop = true;
  other.join();
  EXPECT_TRUE(right);
}

TEST(Arena, LeavesTensorsThatOutliveItsPassesAlone) {
  Arena arena;
  const at::Tensor kept = arena.empty({1000}, at::kFloat).fill_(3.0);
  for (int64_t pass = 1; pass <= 20; ++pass) {
    arena.begin_pass();
    static_cast<void>(arena.empty({pass * 10'000'000}, at::kByte));
  }
  EXPECT_EQ(kept.sum().item<float>(), 3000.0F);
}

// The sets of a first cache repeat every page.
constexpr uintptr_t kPage = 4096;

TEST(Arena, KeepsRowsOfWholePagesInPlacesOfTheirOwn) {
  Arena arena;
  const at::Tensor rows = arena.empty_apart(12, {32, 64});  // of two pages each
  std::set<uintptr_t> places;
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_TRUE(rows[i].is_contiguous());
    EXPECT_EQ(address(rows[i]) % 64, 0U);
    rows[i].fill_(static_cast<double>(i));
    places.insert(address(rows[i]) % kPage);
  }
  EXPECT_EQ(places.size(), 12U);
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_TRUE((rows[i] == static_cast<double>(i)).all().item<bool>()) << i;
  }
  places.clear();
  std::vector<at::Tensor> tensors;
  for (int i = 0; i < 12; ++i) {
    tensors.push_back(arena.empty({32, 64}, at::kFloat));
    places.insert(address(tensors.back()) % kPage);
  }
  EXPECT_EQ(places.size(), 12U);
}

TEST(Arena, KeepsRowsOfNarrowNumbersApartToo) {
  Arena arena;
  const at::Tensor rows = arena.empty_apart(6, {32, 128}, at::kBFloat16);  // of two pages each
  EXPECT_EQ(rows.scalar_type(), at::kBFloat16);
  std::set<uintptr_t> places;
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(address(rows[i]) % 64, 0U);
    places.insert(address(rows[i]) % kPage);
    rows[i].fill_(static_cast<double>(i));
  }
  EXPECT_EQ(places.size(), 6U);
  const at::Tensor odd = arena.empty_apart(3, {3, 5}, at::kBFloat16);
  odd.fill_(1.0);
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(address(odd[i]) % 64, 0U);
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_TRUE((rows[i] == static_cast<double>(i)).all().item<bool>()) << i;
  }
}

TEST(Arena, GivesRowsApartOfAnyShape) {
  Arena arena;
  EXPECT_EQ(arena.empty_apart(0, {3, 5}).sizes(), (std::vector<int64_t>{0, 3, 5}));
  EXPECT_EQ(arena.empty_apart(2, {0, 5}).sizes(), (std::vector<int64_t>{2, 0, 5}));
  const at::Tensor odd = arena.empty_apart(3, {3, 5});
  odd.zero_();
  odd[1].fill_(1.0);
  EXPECT_EQ(odd.sum().item<float>(), 15.0F);
}

}  // namespace
}  // namespace wavroute::ops
