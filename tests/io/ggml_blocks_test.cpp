// Blocks of ggml, by arithmetic; tests/python/test_import.py compares every type with `gguf`.
#include "io/ggml_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "io/half.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

std::vector<std::byte> bytes_of(std::initializer_list<int> values, size_t length) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  bytes.resize(length);
  return bytes;
}

TEST(Half, EveryNumberComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = half_to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value)))) << bits;
    } else {
      EXPECT_EQ(float_to_half(value), half) << bits;
    }
  }
}

TEST(Half, RoundsToTheNearestAndTiesToEven) {
  EXPECT_EQ(half_to_float(0x3c00), 1.0F);
  EXPECT_EQ(half_to_float(0x0001), std::ldexp(1.0F, -24));
  EXPECT_EQ(half_to_float(0xfbff), -65504.0F);
  EXPECT_EQ(float_to_half(1.0F + std::ldexp(1.0F, -11)), 0x3c00);      // a tie, down to even
  EXPECT_EQ(float_to_half(1.0F + 3 * std::ldexp(1.0F, -11)), 0x3c02);  // a tie, up to even
  EXPECT_EQ(float_to_half(std::ldexp(1.5F, -25)), 0x0001);
  EXPECT_EQ(float_to_half(65519.0F), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0F), 0x7c00);
  EXPECT_EQ(float_to_half(-1e30F), 0xfc00);
  EXPECT_EQ(float_to_bf16(1.0F + std::ldexp(1.0F, -8)), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0F + 3 * std::ldexp(1.0F, -8)), 0x3f82);
  EXPECT_EQ(bf16_to_float(0xbf80), -1.0F);
}

TEST(GgmlBlocks, HoldScaleTimesWholeNumbers) {
  std::vector<float> out(32);
  // d = 2 (half 0x4000); the low four bits are the first half of the block.
  dequantize(GgmlType::kQ4_0, bytes_of({0, 0x40, 0x9f}, 18), out);
  EXPECT_EQ(out[0], 2.0F * (15 - 8));
  EXPECT_EQ(out[16], 2.0F * (9 - 8));
  EXPECT_EQ(out[1], 2.0F * -8);
  // d = 2, m = 1.
  dequantize(GgmlType::kQ4_1, bytes_of({0, 0x40, 0, 0x3c, 0x9f}, 20), out);
  EXPECT_EQ(out[0], 31.0F);
  EXPECT_EQ(out[16], 19.0F);
  EXPECT_EQ(out[31], 1.0F);
  // The fifth bit of number 0 and of number 31.
  dequantize(GgmlType::kQ5_0, bytes_of({0, 0x40, 1, 0, 0, 0x80, 0x02}, 22), out);
  EXPECT_EQ(out[0], 2.0F * (2 + 16 - 16));
  EXPECT_EQ(out[31], 2.0F * (16 - 16));
  EXPECT_EQ(out[16], 2.0F * -16);
  dequantize(GgmlType::kQ8_0, bytes_of({0, 0x40, 127, 0x80}, 34), out);
  EXPECT_EQ(out[0], 254.0F);
  EXPECT_EQ(out[1], -256.0F);
}

TEST(GgmlBlocks, Q8IsTheNearestOf255Levels) {
  std::vector<float> in(64, 0.0F);
  for (size_t i = 0; i < 32; ++i) in[i] = static_cast<float>(i) - 12.5F;
  const std::vector<std::byte> bytes = quantize(GgmlType::kQ8_0, in);
  ASSERT_EQ(bytes.size(), 68U);
  std::vector<float> out(64);
  dequantize(GgmlType::kQ8_0, bytes, out);
  const float step = 18.5F / 127;
  for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(out[i], in[i], step / 2 + 127 * step * 5e-4F) << i;
  EXPECT_THAT(std::vector<float>(out.begin() + 32, out.end()), Each(0.0F));
}

TEST(GgmlBlocks, PlainTypesComeBackAsTheyWere) {
  const std::vector<float> in = {1.5F, -0.25F, 0.0F, 1024.0F};
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16, GgmlType::kBF16}) {
    std::vector<float> out(in.size());
    dequantize(type, quantize(type, in), out);
    EXPECT_EQ(out, in) << ggml_type_name(static_cast<uint32_t>(type));
  }
}

TEST(GgmlBlocks, AreNamed) {
  EXPECT_EQ(ggml_type_name(11), "Q3_K");
  EXPECT_EQ(ggml_type_name(1000), "type 1000");
  EXPECT_FALSE(ggml_type(11));
  EXPECT_EQ(ggml_type(12), GgmlType::kQ4_K);
  std::vector<float> out(31);
  EXPECT_THROW(dequantize(GgmlType::kQ8_0, bytes_of({}, 34), out), Failure);
}

}  // namespace
}  // namespace wavroute
