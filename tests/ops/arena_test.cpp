// The memory of a step.
#include "ops/arena.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace wavroute::ops
