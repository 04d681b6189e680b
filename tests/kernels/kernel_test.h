// What the kernel tests share: every test runs on each instruction set that this machine has, and
// those of kernels that GPUs have too run on them under the emulator (kernels/cuda/emulator.h).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/kernels.h"

namespace wavroute::kernels {

// The kernels of one test.
struct TestedKernels : Kernels {
  std::string name;
  bool adds_rows_in_order = true;  // sums over rows have the same bits for any ranges of the rows
};
// Those of this program: tested_kernels.cpp, or cuda/emulated_kernels.cpp.
[[nodiscard]] std::vector<TestedKernels> tested_kernels();

//   class StreamTest : public KernelTest {};
//   INSTANTIATE_TEST_SUITE_P(, StreamTest, every_isa(), isa_name);
class KernelTest : public ::testing::TestWithParam<TestedKernels> {};

inline auto every_isa() { return ::testing::ValuesIn(tested_kernels()); }
inline std::string isa_name(const ::testing::TestParamInfo<TestedKernels>& info) {
  return info.param.name;
}
inline void PrintTo(const TestedKernels& kernels, std::ostream* out) { *out << kernels.name; }

// Rounds to nearest even, as storage does.
inline Bf16 to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return {static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16)};
}
inline double to_double(float x) { return x; }
inline double to_double(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

template <typename C>
C stored(double x) {
  if constexpr (std::is_same_v<C, Bf16>) {
    return to_bf16(static_cast<float>(x));
  } else {
    return static_cast<C>(x);
  }
}
template <typename C>
std::vector<double> to_double(const std::vector<C>& values) {
  std::vector<double> result;
  result.reserve(values.size());
  for (const C x : values) result.push_back(to_double(x));
  return result;
}

// `count` numbers from [-scale, scale), the same for the same seed (splitmix64).
template <typename C = float>
std::vector<C> random_values(int64_t count, uint64_t seed, double scale = 1) {
  std::vector<C> values;
  values.reserve(static_cast<size_t>(count));
  uint64_t state = seed * 0x2545F4914F6CDD1DULL;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t z = state += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z ^= z >> 31;
    values.push_back(stored<C>(scale * (static_cast<double>(z >> 11) * 0x1p-52 - 1)));
  }
  return values;
}

// Calls test.operator()<C>() for both compute types.
template <typename Test>
void for_both_types(Test test) {
  {
    SCOPED_TRACE("float");
    test.template operator()<float>();
  }
  {
    SCOPED_TRACE("bf16");
    test.template operator()<Bf16>();
  }
}

// |actual - expected| <= tolerance * (the largest |expected|, or `floor` if that is more), for
// every element; NaN is never near.
template <typename C>
void expect_near(const std::vector<C>& actual, const std::vector<double>& expected,
                 double tolerance, double floor = 0) {
  ASSERT_EQ(actual.size(), expected.size());
  double scale = floor;
  for (const double x : expected) scale = std::max(scale, std::abs(x));
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_LE(std::abs(to_double(actual[i]) - expected[i]), tolerance * scale)
        << "element " << i << ": " << to_double(actual[i]) << ", expected " << expected[i];
  }
}

// The same bits, so that -0 differs from 0 and a NaN equals itself.
template <typename C>
void expect_same_bits(const std::vector<C>& actual, const std::vector<C>& expected) {
  using Bits = std::conditional_t<std::is_same_v<C, Bf16>, uint16_t, uint32_t>;
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(std::bit_cast<Bits>(actual[i]), std::bit_cast<Bits>(expected[i])) << "element " << i;
  }
}

}  // namespace wavroute::kernels
