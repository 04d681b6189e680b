// Blocks of q8_0, of matrices and of tokens, and their products.
#include "kernels/q8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {
namespace {

class Q8Test : public KernelTest {
 protected:
  template <typename C>
  const Q8ProductKernels<C>& kernels() const {
    return GetParam().q8->by_type.template of<C>();
  }
};
INSTANTIATE_TEST_SUITE_P(, Q8Test, every_isa(), isa_name);

constexpr int64_t kOutputs = 67;  // more than one block of rows, and some left over
constexpr int64_t kInputs[] = {32, 64, 96, 576, 1568};
constexpr int64_t kTokenCounts[] = {1, 2, 3, 4, 7, 8, 21};

double from_fp16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  return exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
}

struct Quantised {
  Quantised(const Q8Kernels& kernels, const std::vector<float>& values, int64_t columns)
      : quants(values.size()), scales(values.size() / kQ8Block), columns(columns) {
    for (size_t at = 0; at < values.size(); at += static_cast<size_t>(columns)) {
      kernels.quantise({columns, &values[at], &quants[at], &scales[at / kQ8Block]});
    }
  }
  [[nodiscard]] double scale(size_t i) const { return from_fp16(scales[i / kQ8Block]); }
  [[nodiscard]] double value(size_t i) const { return quants[i] * scale(i); }
  [[nodiscard]] Q8Rows rows() const {
    return {{quants.data(), columns}, {scales.data(), columns / kQ8Block}};
  }
  std::vector<int8_t> quants;
  std::vector<uint16_t> scales;
  int64_t columns;
};

// Tokens in blocks.
template <typename C>
struct Rounded {
  Rounded(const Q8ProductKernels<C>& kernels, const std::vector<C>& values, int64_t columns)
      : quants(values.size()), scales(values.size() / kQ8Block), columns(columns) {
    const Q8Tokens<C> call = {columns,
                              {values.data(), columns},
                              {quants.data(), columns},
                              {scales.data(), columns / kQ8Block}};
    kernels.round_tokens(call, 0, std::ssize(values) / columns);
  }
  std::vector<int8_t> quants;
  std::vector<float> scales;
  int64_t columns;
};

template <typename C>
std::vector<C> multiply(const Q8ProductKernels<C>& kernels, const Rounded<C>& x,
                        const Quantised& w) {
  const int64_t tokens = std::ssize(x.quants) / x.columns, rows = std::ssize(w.quants) / x.columns;
  std::vector<C> y(static_cast<size_t>(tokens * rows), stored<C>(-77));
  kernels.products({x.columns,
                    tokens,
                    {x.quants.data(), x.columns},
                    {x.scales.data(), x.columns / kQ8Block},
                    w.rows(),
                    {y.data(), rows},
                    {}},
                   0, rows);
  return y;
}

// ---- rounding ----

TEST_P(Q8Test, ABlockIsRoundedToA127thOfItsLargestNumber) {
  // 127 eighths is the largest: a scale of exactly 1/8, so that eighths are kept and sixteenths
  // rounded away from zero.
  std::vector<float> values(kQ8Block);
  for (int64_t i = 0; i < kQ8Block; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i) / 8;
  values[31] = -127.0F / 8;
  values[30] = 5.0F / 16;
  values[29] = -5.0F / 16;
  const Quantised q(*GetParam().q8, values, kQ8Block);
  EXPECT_EQ(from_fp16(q.scales[0]), 0.125);
  for (size_t i = 0; i < 29; ++i) EXPECT_EQ(q.quants[i], static_cast<int>(i));
  EXPECT_EQ(q.quants[29], -3);
  EXPECT_EQ(q.quants[30], 3);
  EXPECT_EQ(q.quants[31], -127);
}

TEST_P(Q8Test, QuantsOfAnySizeAreNear) {
  for (const double size : {1e-7, 1e-5, 3e-4, 1.0, 300.0}) {
    const std::vector<float> values = random_values(4 * kQ8Block, 3, size);
    const Quantised q(*GetParam().q8, values, 2 * kQ8Block);
    for (size_t i = 0; i < values.size(); ++i) {
      // Half a quant, and what 11 bits of scale (or 2^-25 below 2^-14) lose of 127.
      const double scale = size / 127;
      const double bound = scale / 2 + 127 * std::max(scale * 0x1p-11, 0x1p-25);
      EXPECT_NEAR(q.value(i), values[i], 1.001 * bound);
    }
  }
  const Quantised zeros(*GetParam().q8, std::vector<float>(kQ8Block), kQ8Block);
  for (size_t i = 0; i < kQ8Block; ++i) EXPECT_EQ(zeros.value(i), 0.0);
}

TEST_P(Q8Test, ATokenIsRoundedToTheNearestQuantOfItsBlock) {
  for_both_types([&]<typename C>() {
    for (const double size : {1e-28, 1e-7, 1.0, 1e30}) {
      const std::vector<C> values = random_values<C>(6 * kQ8Block, 4, size);
      const Rounded<C> x(kernels<C>(), values, 3 * kQ8Block);
      for (size_t block = 0; block < x.scales.size(); ++block) {
        float largest = 0;
        for (size_t i = block * kQ8Block; i < (block + 1) * kQ8Block; ++i) {
          largest = std::max(largest, std::abs(static_cast<float>(to_double(values[i]))));
        }
        ASSERT_EQ(x.scales[block], largest / 127.0F);
        const double scale = static_cast<double>(largest) / 127;
        for (size_t i = block * kQ8Block; i < (block + 1) * kQ8Block; ++i) {
          // Half a quant; 127 over the largest and its product with a number are rounded: two units
          // of 2^-24 of at most 127 quants.
          ASSERT_NEAR(x.quants[i], to_double(values[i]) / scale, 0.5 + 127 * 0x1p-23);
        }
      }
    }
  });
}

TEST_P(Q8Test, ABlockOfTinyNumbersIsZero) {
  std::vector<float> values(2 * kQ8Block, 1e-40F);
  values[40] = -0x1p-101F;
  const Rounded<float> x(kernels<float>(), values, 2 * kQ8Block);
  for (const float scale : x.scales) EXPECT_EQ(scale, 0.0F);
  for (const int8_t quant : x.quants) EXPECT_EQ(quant, 0);
}

// ---- products ----

// The products of a block are integers, whose sums in a vector's lanes are exact in float. Each is
// multiplied by the product of two scales (rounded once) and added to its lane's sum (once for each
// block or two), and at most 16 lanes are added up in four steps: below blocks + 5 roundings of a
// part, each of 2^-24 of the sizes of all.
double rounding_bound(int64_t blocks, double sizes) {
  return static_cast<double>(blocks + 5) * 0x1.01p-24 * sizes;
}

TEST_P(Q8Test, ProductsAreThoseOfBothBlocks) {
  for_both_types([&]<typename C>() {
    for (const int64_t inputs : kInputs) {
      for (const int64_t tokens : kTokenCounts) {
        SCOPED_TRACE(testing::Message() << inputs << " inputs, " << tokens << " tokens");
        std::vector<C> values = random_values<C>(tokens * inputs, 1);
        std::fill_n(values.begin(), kQ8Block, stored<C>(0));  // a block of zeros
        const Rounded<C> x(kernels<C>(), values, inputs);
        const Quantised w(*GetParam().q8, random_values(kOutputs * inputs, 2, 0.1), inputs);
        const std::vector<C> y = multiply(kernels<C>(), x, w);
        for (int64_t i = 0; i < tokens * kOutputs; ++i) {
          const int64_t token = i / kOutputs, row = i % kOutputs;
          double sum = 0, sizes = 0;
          for (int64_t block = 0; block < inputs / kQ8Block; ++block) {
            int64_t product = 0, size = 0;
            for (int64_t c = block * kQ8Block; c < (block + 1) * kQ8Block; ++c) {
              const int64_t term = int64_t{x.quants[static_cast<size_t>(token * inputs + c)]} *
                                   w.quants[static_cast<size_t>(row * inputs + c)];
              product += term;
              size += std::abs(term);
            }
            const auto of_block = [&](int64_t of) {
              return static_cast<size_t>(of * inputs / kQ8Block + block);
            };
            const double scale =
                double{x.scales[of_block(token)]} * from_fp16(w.scales[of_block(row)]);
            sum += static_cast<double>(product) * scale;
            sizes += static_cast<double>(size) * scale;
          }
          const double stored_bound = sizeof(C) == sizeof(float) ? 0 : 0x1.01p-8 * std::abs(sum);
          ASSERT_NEAR(to_double(y[static_cast<size_t>(i)]), sum,
                      rounding_bound(inputs / kQ8Block, sizes) + stored_bound)
              << "token " << token << ", row " << row;
        }
      }
    }
  });
}

// Whole numbers up to 127, which both sides keep as they are: sums that float has exactly.
TEST_P(Q8Test, ProductsOfWholeNumbersAreExact) {
  constexpr int64_t kColumns = 96;
  for (const int sign : {1, -1, 0}) {  // 0: of either sign
    std::vector<float> x(3 * kColumns), w(kOutputs * kColumns);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = sign != 0 ? 127.0F : static_cast<float>(static_cast<int>(i * 37 % 255) - 127);
      if (i % kQ8Block == 5) x[i] = 127.0F;
    }
    for (size_t i = 0; i < w.size(); ++i) {
      w[i] = sign != 0 ? 127.0F * static_cast<float>(sign)
                       : static_cast<float>(static_cast<int>(i * 101 % 255) - 127);
      if (i % kQ8Block == 7) w[i] = -127.0F;
    }
    const Quantised quantised(*GetParam().q8, w, kColumns);
    const std::vector<float> y =
        multiply(kernels<float>(), Rounded<float>(kernels<float>(), x, kColumns), quantised);
    for (size_t token = 0; token < 3; ++token) {
      for (size_t row = 0; row < kOutputs; ++row) {
        double sum = 0;
        for (size_t c = 0; c < kColumns; ++c) sum += double{x[token * 96 + c]} * w[row * 96 + c];
        ASSERT_EQ(y[token * kOutputs + row], sum) << "token " << token << ", row " << row;
      }
    }
  }
}

TEST_P(Q8Test, AProductIsTheSameInAnyRangeBesideAnyTokens) {
  for_both_types([&]<typename C>() {
    constexpr int64_t kColumns = 160, kTokens = 15;
    const std::vector<C> values = random_values<C>(kTokens * kColumns, 5);
    const Rounded<C> x(kernels<C>(), values, kColumns);
    const Quantised w(*GetParam().q8, random_values(kOutputs * kColumns, 6), kColumns);
    const std::vector<C> whole = multiply(kernels<C>(), x, w);
    std::vector<C> parts(whole.size(), stored<C>(-77)), alone = parts;
    const Q8Products<C> call = {kColumns,
                                kTokens,
                                {x.quants.data(), kColumns},
                                {x.scales.data(), kColumns / kQ8Block},
                                w.rows(),
                                {parts.data(), kOutputs},
                                {}};
    kernels<C>().products(call, 5, 9);
    for (int64_t i = 0; i < std::ssize(parts); ++i) {
      const bool outside = i % kOutputs < 5 || i % kOutputs >= 9;
      ASSERT_EQ(to_double(parts[static_cast<size_t>(i)]) == -77.0, outside) << i;
    }
    for (const auto& [begin, end] : {std::pair{0, 1}, {1, 1}, {1, 30}, {30, 67}}) {
      kernels<C>().products(call, begin, end);
    }
    for (int64_t t = 0; t < kTokens; ++t) {
      Q8Products<C> one = call;
      one.tokens = 1;
      one.x = call.x.from(t), one.x_scales = call.x_scales.from(t);
      one.y = {alone.data() + t * kOutputs, kOutputs};
      kernels<C>().products(one, 0, kOutputs);
    }
    expect_same_bits(parts, whole);
    expect_same_bits(alone, whole);
  });
}

// What is not finite must not be rounded away: a model that overflows is refused by its logits.
TEST_P(Q8Test, WhatIsNotFiniteStaysSo) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), -std::nanf(""), kInfinity, -kInfinity}) {
    for (const size_t at : {0, 31, 40, 95}) {
      std::vector<float> x = random_values(96, 7);
      x[at] = bad;
      const Quantised w(*GetParam().q8, random_values(kOutputs * 96, 8), 96);
      const std::vector<float> y =
          multiply(kernels<float>(), Rounded<float>(kernels<float>(), x, 96), w);
      for (const float element : y) ASSERT_FALSE(std::isfinite(element)) << bad << " at " << at;
    }
  }
}

}  // namespace
}  // namespace wavroute::kernels
