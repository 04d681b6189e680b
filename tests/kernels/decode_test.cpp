// Products of a few tokens, and attention over a cache.
#include "kernels/decode.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "tests/kernels/attention_reference.h"
#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {
namespace {

class DecodeTest : public KernelTest {
 protected:
  template <typename C>
  const DecodeKernels<C>& kernels() const {
    return GetParam().decode->template of<C>();
  }
};
INSTANTIATE_TEST_SUITE_P(, DecodeTest, every_isa(), isa_name);

template <typename C>
constexpr double kTolerance = sizeof(C) == sizeof(float) ? 1e-5 : 4e-3;

// ---- products ----

constexpr int64_t kInputs[] = {1, 37, 64, 333, 576};
constexpr int64_t kTokenCounts[] = {1, 2, 3, 4, 7, 16};
constexpr int64_t kOutputs = 43;  // more than one block of rows, and some left over

template <typename C>
struct Problem {
  Problem(int64_t inputs, int64_t tokens)
      : inputs(inputs),
        tokens(tokens),
        x(random_values(tokens * inputs, 1)),
        w(random_values<C>(kOutputs * inputs, 2)),
        y(static_cast<size_t>(tokens * kOutputs), stored<C>(-77)) {}
  TokenProducts<C> call() {
    return {inputs, tokens, {x.data(), inputs}, {w.data(), inputs}, {y.data(), kOutputs}, {}};
  }
  int64_t inputs, tokens;
  std::vector<float> x;
  std::vector<C> w, y;
};

std::vector<double> reference(int64_t inputs, int64_t tokens, const std::vector<double>& x,
                              const std::vector<double>& w) {
  std::vector<double> y;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t row = 0; row < kOutputs; ++row) {
      y.push_back(std::inner_product(x.begin() + t * inputs, x.begin() + (t + 1) * inputs,
                                     w.begin() + row * inputs, 0.0));
    }
  }
  return y;
}

TEST_P(DecodeTest, ProductsAreThoseOfMatrices) {
  for_both_types([&]<typename C>() {
    for (const int64_t inputs : kInputs) {
      for (const int64_t tokens : kTokenCounts) {
        SCOPED_TRACE(testing::Message() << inputs << " inputs, " << tokens << " tokens");
        Problem<C> p(inputs, tokens);
        kernels<C>().products(p.call(), 0, kOutputs);
        expect_near(p.y, reference(inputs, tokens, to_double(p.x), to_double(p.w)), kTolerance<C>);
      }
    }
  });
}

TEST_P(DecodeTest, AProductIsTheSameInAnyRangeBesideAnyTokens) {
  for_both_types([&]<typename C>() {
    Problem<C> whole(333, 7), parts(333, 7), alone(333, 7);
    kernels<C>().products(whole.call(), 0, kOutputs);
    for (const auto& [begin, end] : {std::pair{0, 1}, {1, 1}, {1, 20}, {20, 43}}) {
      kernels<C>().products(parts.call(), begin, end);
    }
    for (int64_t t = 0; t < 7; ++t) {
      auto call = alone.call();
      call.tokens = 1;
      call.x = call.x.from(t), call.y = call.y.from(t);
      kernels<C>().products(call, 0, kOutputs);
    }
    expect_same_bits(parts.y, whole.y);
    expect_same_bits(alone.y, whole.y);
  });
}

TEST_P(DecodeTest, AWideProductIsTheOneBeforeItsRounding) {
  for_both_types([&]<typename C>() {
    Problem<C> p(333, 3);
    kernels<C>().products(p.call(), 0, kOutputs);
    std::vector<float> wide(p.y.size());
    std::vector<C> rounded;
    auto call = p.call();
    call.y = {};
    call.wide_y = {wide.data(), kOutputs};
    kernels<C>().products(call, 0, kOutputs);
    for (const float number : wide) rounded.push_back(stored<C>(number));
    expect_same_bits(rounded, p.y);
    expect_near(wide, reference(333, 3, to_double(p.x), to_double(p.w)), kTolerance<float>);
  });
}

TEST_P(DecodeTest, WhatIsOutsideTheRangeIsLeftAlone) {
  Problem<float> p(64, 3);
  kernels<float>().products(p.call(), 5, 9);
  for (int64_t i = 0; i < 3 * kOutputs; ++i) {
    const int64_t row = i % kOutputs;
    EXPECT_EQ(p.y[static_cast<size_t>(i)] == -77.0F, row < 5 || row >= 9) << row;
  }
}

// ---- attention ----

TEST_P(DecodeTest, TokenByTokenAttentionIsThatOfTheWholeSequence) {
  for_both_types([&]<typename C>() {
    for (const int64_t width : {2, 16, 38, 64, 80}) {
      SCOPED_TRACE(testing::Message() << "width " << width);
      constexpr int64_t kLength = 21, kCapacity = 25;
      const AttentionShape s = {
          .batch = 2, .length = kLength, .heads = 6, .kv_heads = 2, .width = width};
      const std::vector<C> qkv = random_values<C>(static_cast<int64_t>(qkv_size(s)), 5);
      const Reference expected(s, to_double(qkv));
      const std::vector<float> cos = table(s, std::cos), sin = table(s, std::sin);
      std::vector<C> keys(static_cast<size_t>(2 * s.kv_heads * kCapacity * width), stored<C>(NAN));
      std::vector<C> values = keys, y(y_size(s));
      std::vector<float> scratch(static_cast<size_t>(kLength + width));
      // The first `first` tokens at once, then one by one; sequence 1 is a token behind.
      for (const int64_t first : {1, 8}) {
        for (int64_t t = 0; t < kLength; t += t == 0 ? first : 1) {
          const int64_t count = t == 0 ? first : 1;
          const int64_t positions[] = {t, std::max<int64_t>(t - 1, 0)};
          std::vector<C> rows;
          for (const int64_t b : {0, 1}) {
            const auto from = qkv.begin() + (b * kLength + positions[b]) * s.row();
            rows.insert(rows.end(), from, from + count * s.row());
          }
          std::vector<C> out(static_cast<size_t>(2 * count * s.heads * width));
          CachedAttention<C> call = {.shape = s,
                                     .qkv = {rows.data(), s.row()},
                                     .positions = positions,
                                     .cos = {cos.data(), width / 2},
                                     .sin = {sin.data(), width / 2},
                                     .keys = {keys.data(), kCapacity * width, width},
                                     .values = {values.data(), kCapacity * width, width},
                                     .y = {out.data(), s.heads * width}};
          call.shape.length = count;
          kernels<C>().keep(call, 0, 1);
          kernels<C>().keep(call, 1, 2 * count);
          kernels<C>().attend(call, 0, 1, scratch.data());
          kernels<C>().attend(call, 1, 2 * count * s.heads, scratch.data());
          for (const int64_t b : {0, 1}) {
            std::copy_n(out.begin() + b * count * s.heads * width, count * s.heads * width,
                        y.begin() + (b * kLength + positions[b]) * s.heads * width);
          }
        }
        // All but the last position of sequence 1. Keys of Bf16 are rounded once rotated.
        const auto until = static_cast<int64_t>(y.size()) - s.heads * width;
        expect_near(std::vector<C>(y.begin(), y.begin() + until),
                    std::vector<double>(expected.y.begin(), expected.y.begin() + until),
                    sizeof(C) == sizeof(float) ? 1e-5 : 1e-2);
      }
    }
  });
}

TEST_P(DecodeTest, WideningIsExact) {
  for_both_types([&]<typename C>() {
    const std::vector<C> from = random_values<C>(37, 6);
    std::vector<float> to(38, -77.0F);
    kernels<C>().widen(from.data(), 37, to.data());
    for (size_t i = 0; i < 37; ++i) EXPECT_EQ(to_double(to[i]), to_double(from[i]));
    EXPECT_EQ(to[37], -77.0F);
  });
}

}  // namespace
}  // namespace wavroute::kernels
