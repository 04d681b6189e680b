#include "kernels/elementwise.h"

#include <cmath>
#include <limits>
#include <utility>

#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {
namespace {

using Doubles = std::vector<double>;

// Float results take some ten roundings of 2^-24; bf16 results are stored with 8 bits, half a
// unit of which is 2^-9.
constexpr double kFloatTolerance = 1e-5;
template <typename C>
constexpr double kTolerance = sizeof(C) == sizeof(float) ? kFloatTolerance : 4e-3;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Ranges that cover seven rows or elements, unevenly.
constexpr std::pair<int64_t, int64_t> kSplit[] = {{0, 1}, {1, 4}, {4, 4}, {4, 7}};
constexpr int64_t kTokens = 7;

class ActivationTest : public KernelTest {
 protected:
  template <typename C>
  const ActivationKernels<C>& activation() const {
    return GetParam().activation->template of<C>();
  }
};
INSTANTIATE_TEST_SUITE_P(, ActivationTest, every_isa(), isa_name);

class FlatTest : public KernelTest {
 protected:
  const FlatKernels& flat() const { return *GetParam().flat; }
};
INSTANTIATE_TEST_SUITE_P(, FlatTest, every_isa(), isa_name);

// ---- SwiGLU ----

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }
double silu_slope(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }

constexpr int64_t kHidden[] = {1, 37, 64, 333, 1024};

template <typename C>
struct SwigluProblem {
  explicit SwigluProblem(int64_t width) : hidden(width) {}
  int64_t hidden;
  std::vector<C> gate_up = random_values<C>(kTokens * 2 * hidden, 1, 8);
  std::vector<C> da = random_values<C>(kTokens * hidden, 2);

  double gate(int64_t i) const { return to_double(gate_up[i + i / hidden * hidden]); }
  double up(int64_t i) const { return to_double(gate_up[i + (i / hidden + 1) * hidden]); }
  Swiglu<C> forward(std::vector<C>& a) const {
    return {hidden, {gate_up.data(), 2 * hidden}, {a.data(), hidden}};
  }
  SwigluBackward<C> backward() {
    return {hidden, {gate_up.data(), 2 * hidden}, {da.data(), hidden}};
  }
};

TEST_P(ActivationTest, SwigluAndItsGradientsFollowTheEquations) {
  for_both_types([&]<typename C>() {
    for (const int64_t hidden : kHidden) {
      SCOPED_TRACE("hidden " + std::to_string(hidden));
      SwigluProblem<C> p(hidden);
      Doubles a(kTokens * hidden), grads(2 * a.size());
      for (int64_t i = 0; i < kTokens * hidden; ++i) {
        const double grad = to_double(p.da[i]);
        const int64_t column = i + i / hidden * hidden;
        a[i] = silu(p.gate(i)) * p.up(i);
        grads[column] = grad * p.up(i) * silu_slope(p.gate(i));
        grads[column + hidden] = grad * silu(p.gate(i));
      }
      std::vector<C> actual(a.size());
      activation<C>().swiglu(p.forward(actual), 0, kTokens);
      expect_near(actual, a, kTolerance<C>);
      activation<C>().swiglu_backward(p.backward(), 0, kTokens);
      expect_near(p.da, a, kTolerance<C>);
      expect_near(p.gate_up, grads, kTolerance<C>);
    }
  });
}

// Central differences of the reference in double.
TEST_P(ActivationTest, SwigluBackwardIsTheDerivativeOfForward) {
  SwigluProblem<float> p(37);
  Doubles grads(p.gate_up.size());
  constexpr double kStep = 1e-5;
  for (int64_t i = 0; i < kTokens * 37; ++i) {
    const double g = p.gate(i), u = p.up(i), scale = p.da[i] / (2 * kStep);
    const int64_t column = i + i / 37 * 37;
    grads[column] = (silu(g + kStep) * u - silu(g - kStep) * u) * scale;
    grads[column + 37] = (silu(g) * (u + kStep) - silu(g) * (u - kStep)) * scale;
  }
  activation<float>().swiglu_backward(p.backward(), 0, kTokens);
  expect_near(p.gate_up, grads, kFloatTolerance);
}

// Where exp(-g) has long overflowed: silu is the gate or 0, its slope 1 or 0.
TEST_P(ActivationTest, SwigluIsFiniteAndExactForLargeGates) {
  for_both_types([&]<typename C>() {
    for (const double magnitude : {120.0, 1e4, 1e30, 3.0e38}) {
      SCOPED_TRACE(magnitude);
      SwigluProblem<C> p(37);
      for (int64_t i = 0; i < 37; ++i) {
        p.gate_up[i] = stored<C>(i % 2 ? -magnitude : magnitude);
        p.gate_up[37 + i] = stored<C>(0.5);
        p.da[i] = stored<C>(0.25);
      }
      const double large = to_double(p.gate_up[0]);
      std::vector<C> a(p.da.size());
      activation<C>().swiglu(p.forward(a), 0, 1);
      activation<C>().swiglu_backward(p.backward(), 0, 1);
      for (int64_t i = 0; i < 37; ++i) {
        ASSERT_EQ(to_double(a[i]), i % 2 ? 0 : large / 2);
        ASSERT_EQ(to_double(p.da[i]), i % 2 ? 0 : large / 2);
        ASSERT_EQ(to_double(p.gate_up[i]), i % 2 ? 0 : 0.125);
        ASSERT_EQ(to_double(p.gate_up[37 + i]), i % 2 ? 0 : large / 4);
      }
    }
  });
}

TEST_P(ActivationTest, SwigluPassesNaNOn) {
  SwigluProblem<float> p(37);
  p.gate_up[3] = NAN;
  std::vector<float> a(p.da.size());
  activation<float>().swiglu(p.forward(a), 0, kTokens);
  EXPECT_TRUE(std::isnan(a[3]));
  EXPECT_FALSE(std::isnan(a[2]));
}

TEST_P(ActivationTest, SwigluRowDoesNotDependOnTheRange) {
  for_both_types([&]<typename C>() {
    for (const int64_t hidden : kHidden) {
      SwigluProblem<C> whole(hidden), split(hidden);
      std::vector<C> whole_a(kTokens * hidden), split_a(kTokens * hidden);
      activation<C>().swiglu(whole.forward(whole_a), 0, kTokens);
      for (const auto& [begin, end] : kSplit) {
        activation<C>().swiglu(split.forward(split_a), begin, end);
      }
      expect_same_bits(split_a, whole_a);
      activation<C>().swiglu_backward(whole.backward(), 0, kTokens);
      for (const auto& [begin, end] : kSplit) {
        activation<C>().swiglu_backward(split.backward(), begin, end);
      }
      expect_same_bits(split.gate_up, whole.gate_up);
      expect_same_bits(split.da, whole.da);
    }
  });
}

// ---- cross-entropy ----

constexpr int64_t kVocabularies[] = {1, 17, 256, 4099, 50257};
constexpr float kWeight = 0.125F;

template <typename C>
struct CrossEntropyProblem {
  explicit CrossEntropyProblem(int64_t size) : vocabulary(size) {
    for (int64_t row = 0; row < kTokens; ++row) targets.push_back(row * 7919 % vocabulary);
    targets[1] = -100;
    targets[4] = vocabulary - 1;
  }
  int64_t vocabulary;
  std::vector<C> logits = random_values<C>(kTokens * vocabulary, 1, 6);
  std::vector<int64_t> targets;
  std::vector<float> loss = std::vector<float>(kTokens, -9);

  CrossEntropy<C> call(bool want_grad) {
    return {vocabulary, {logits.data(), vocabulary}, targets.data(), -100, want_grad, kWeight,
            loss.data()};
  }
  bool scored(int64_t row) const { return targets[row] != -100; }
  Doubles expected_loss(const Doubles& x) const {
    Doubles result;
    for (int64_t row = 0; row < kTokens; ++row) {
      double sum = 0;
      for (int64_t j = 0; j < vocabulary; ++j) sum += std::exp(x[row * vocabulary + j]);
      result.push_back(scored(row) ? std::log(sum) - x[row * vocabulary + targets[row]] : 0);
    }
    return result;
  }
  Doubles expected_grad() const {
    Doubles grad = to_double(logits);
    for (int64_t row = 0; row < kTokens; ++row) {
      double* g = &grad[row * vocabulary];
      double sum = 0;
      for (int64_t j = 0; j < vocabulary; ++j) sum += std::exp(g[j]);
      for (int64_t j = 0; j < vocabulary; ++j) {
        g[j] = scored(row) ? kWeight * (std::exp(g[j]) / sum - (j == targets[row])) : 0;
      }
    }
    return grad;
  }
};

TEST_P(ActivationTest, CrossEntropyAndItsGradientFollowTheEquations) {
  for_both_types([&]<typename C>() {
    for (const int64_t vocabulary : kVocabularies) {
      SCOPED_TRACE("vocabulary " + std::to_string(vocabulary));
      CrossEntropyProblem<C> p(vocabulary);
      const std::vector<C> before = p.logits;
      const Doubles loss = p.expected_loss(to_double(before)), grad = p.expected_grad();
      activation<C>().cross_entropy(p.call(false), 0, kTokens);
      // The loss is in float for either type; of one symbol it is 0 to rounding.
      expect_near(p.loss, loss, kFloatTolerance, 1);
      expect_same_bits(p.logits, before);
      const std::vector<float> alone = std::exchange(p.loss, std::vector<float>(kTokens, -9));
      activation<C>().cross_entropy(p.call(true), 0, kTokens);
      expect_same_bits(p.loss, alone);
      expect_near(p.logits, grad, kTolerance<C>);
      // The target's entry would hide errors of the others: probabilities, on a scale of their own.
      for (int64_t row = 0; row < kTokens; ++row) {
        for (int64_t j = 0; j < vocabulary; ++j) {
          const int64_t i = row * vocabulary + j;
          if (j == p.targets[row]) continue;
          ASSERT_NEAR(to_double(p.logits[i]), grad[i], kTolerance<C> * grad[i] + 1e-12);
        }
      }
    }
  });
}

TEST_P(ActivationTest, CrossEntropyGradientIsTheDerivativeOfTheLoss) {
  CrossEntropyProblem<float> p(17);
  Doubles x = to_double(p.logits), grad;
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + kStep;
    const double above = p.expected_loss(x)[i / 17];
    x[i] = kept - kStep;
    grad.push_back(kWeight * (above - p.expected_loss(x)[i / 17]) / (2 * kStep));
    x[i] = kept;
  }
  activation<float>().cross_entropy(p.call(true), 0, kTokens);
  expect_near(p.logits, grad, kFloatTolerance);
}

TEST_P(ActivationTest, CrossEntropyTakesLargeAndMaskedLogits) {
  for (const int64_t vocabulary : {int64_t{17}, int64_t{9000}}) {
    CrossEntropyProblem<float> p(vocabulary);
    // A masked chunk first, then a far larger logit than any before, in the last column.
    for (float& x : p.logits) x = -INFINITY;
    for (int64_t row = 0; row < kTokens; ++row) {
      p.targets[row] = vocabulary - 2;
      p.logits[row * vocabulary + vocabulary - 1] = row % 2 ? 3e4F : -3e4F;
      p.logits[row * vocabulary + vocabulary - 2] = row % 2 ? 3e4F : -3e4F;
    }
    activation<float>().cross_entropy(p.call(true), 0, kTokens);
    expect_near(p.loss, Doubles(kTokens, std::log(2.0)), kFloatTolerance);
    for (int64_t row = 0; row < kTokens; ++row) {
      ASSERT_EQ(p.logits[row * vocabulary], 0);
      ASSERT_NEAR(p.logits[row * vocabulary + vocabulary - 1], kWeight / 2, 1e-7);
      ASSERT_NEAR(p.logits[row * vocabulary + vocabulary - 2], -kWeight / 2, 1e-7);
    }
  }
}

TEST_P(ActivationTest, CrossEntropyShowsNaNWhereItIsScoredAndOnlyThere) {
  for_both_types([&]<typename C>() {
    for (const int64_t column : {0, 5, 16, 4098}) {
      CrossEntropyProblem<C> p(column < 17 ? 17 : 4099);
      for (const int64_t row : {1, 2}) p.logits[row * p.vocabulary + column] = stored<C>(NAN);
      activation<C>().cross_entropy(p.call(true), 0, kTokens);
      EXPECT_EQ(p.loss[1], 0);
      EXPECT_EQ(to_double(p.logits[p.vocabulary + column]), 0);
      EXPECT_TRUE(std::isnan(p.loss[2]));
      EXPECT_FALSE(std::isnan(p.loss[3]));
    }
  });
}

TEST_P(ActivationTest, CrossEntropyLeavesOutWhateverTargetIsCalledUnscored) {
  CrossEntropyProblem<float> p(17);
  p.targets = {3, 5, 3, 5, 5, 5, 5};
  CrossEntropy<float> c = p.call(true);
  c.unscored = 3;
  activation<float>().cross_entropy(c, 0, kTokens);
  for (int64_t row = 0; row < kTokens; ++row) {
    EXPECT_EQ(p.loss[row] == 0, p.targets[row] == 3);
    EXPECT_EQ(p.logits[row * 17] == 0, p.targets[row] == 3);
  }
}

TEST_P(ActivationTest, CrossEntropyRowDoesNotDependOnTheRange) {
  for_both_types([&]<typename C>() {
    for (const int64_t vocabulary : {1, 17, 4099}) {
      CrossEntropyProblem<C> whole(vocabulary), split(vocabulary);
      activation<C>().cross_entropy(whole.call(true), 0, kTokens);
      for (const auto& [begin, end] : kSplit) {
        activation<C>().cross_entropy(split.call(true), begin, end);
      }
      expect_same_bits(split.loss, whole.loss);
      expect_same_bits(split.logits, whole.logits);
    }
  });
}

// ---- AdamW ----

constexpr int64_t kCount = 301;

struct AdamwProblem {
  std::vector<float> value = random_values(kCount, 1), grad = random_values(kCount, 2, 0.1);
  std::vector<float> first = std::vector<float>(kCount), second = first;
  std::vector<Bf16> copy = std::vector<Bf16>(kCount);
  AdamwStep step(int t) {
    AdamwStep s{value.data(), grad.data(), first.data(), second.data(), copy.data()};
    s.lr = 0.01F, s.beta1 = 0.9F, s.beta2 = 0.95F, s.eps = 1e-4F, s.weight_decay = 0.1F;
    s.correction1 = static_cast<float>(1 - std::pow(double{s.beta1}, t));
    s.correction2 = static_cast<float>(1 - std::pow(double{s.beta2}, t));
    s.grad_scale = 0.5F;
    return s;
  }
};

// Algorithm 2 of the paper, with the learning rate as the schedule's multiplier.
TEST_P(FlatTest, AdamwFollowsThePaperOverThreeSteps) {
  AdamwProblem p;
  Doubles value = to_double(p.value), m(kCount), v(kCount);
  for (int t = 1; t <= 3; ++t) {
    SCOPED_TRACE(t);
    p.grad = random_values(kCount, 10 + t, 0.1);
    const AdamwStep s = p.step(t);
    const double beta1 = s.beta1, beta2 = s.beta2, lr = s.lr;
    for (int64_t i = 0; i < kCount; ++i) {
      const double g = 0.5 * p.grad[i];
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(beta1, t));
      const double v_hat = v[i] / (1 - std::pow(beta2, t));
      value[i] -= lr * (m_hat / (std::sqrt(v_hat) + s.eps) + s.weight_decay * value[i]);
    }
    flat().adamw(s, 0, kCount);
    expect_near(p.value, value, 1e-6);
    expect_near(p.first, m, 1e-6);
    expect_near(p.second, v, 1e-6);
    expect_same_bits(p.grad, std::vector<float>(kCount));
    for (int64_t i = 0; i < kCount; ++i) ASSERT_EQ(p.copy[i].bits, to_bf16(p.value[i]).bits);
  }
}

TEST_P(FlatTest, AdamwElementDoesNotDependOnTheRangeOrTheCopy) {
  AdamwProblem whole, split;
  flat().adamw(whole.step(1), 0, kCount);
  AdamwStep without = split.step(1);
  without.copy = nullptr;
  for (const auto& [begin, end] : {std::pair{0, 0}, {0, 3}, {3, 150}, {150, 301}}) {
    flat().adamw(without, begin, end);
  }
  expect_same_bits(split.value, whole.value);
  expect_same_bits(split.first, whole.first);
  expect_same_bits(split.second, whole.second);
  expect_same_bits(split.grad, whole.grad);
}

TEST_P(FlatTest, AdamwTouchesItsRangeAlone) {
  AdamwProblem p;
  const AdamwProblem before = p;
  flat().adamw(p.step(1), 5, 290);
  for (const int64_t i : {0, 4, 290, 300}) {
    ASSERT_EQ(p.value[i], before.value[i]);
    ASSERT_EQ(p.grad[i], before.grad[i]);
    ASSERT_EQ(p.first[i], 0);
    ASSERT_EQ(p.copy[i].bits, 0);
  }
}

TEST_P(FlatTest, AdamwPassesNaNOn) {
  AdamwProblem p;
  p.grad[7] = NAN;
  flat().adamw(p.step(1), 0, kCount);
  EXPECT_TRUE(std::isnan(p.value[7]));
  EXPECT_TRUE(std::isnan(to_double(p.copy[7])));
  EXPECT_EQ(p.grad[7], 0);
  EXPECT_FALSE(std::isnan(p.value[6]));
}

// ---- sums and conversions ----

TEST_P(FlatTest, SumOfSquaresIsADoubleSum) {
  for (const int64_t count : {0, 1, 31, 64, 1000, 100003}) {
    const std::vector<float> x = random_values(count + 5, 3, 1e20);  // a square overflows a float
    double sum = 0;
    for (int64_t i = 5; i < count + 5; ++i) sum += double{x[i]} * double{x[i]};
    // Two orders of up to 1e5 additions, each of which rounds to 2^-53.
    EXPECT_NEAR(flat().sum_of_squares(x.data(), 5, count + 5), sum, 1e-11 * sum);
  }
}

TEST_P(FlatTest, SumOfSquaresIsAFunctionOfTheNumbersNotOfTheirPlace) {
  const std::vector<float> x = random_values(1000, 3);
  const double expected = flat().sum_of_squares(x.data(), 0, 1000);
  for (const int64_t shift : {1, 7, 16}) {
    std::vector<float> moved(shift, 5.0F);
    moved.insert(moved.end(), x.begin(), x.end());
    EXPECT_EQ(flat().sum_of_squares(moved.data(), shift, shift + 1000), expected);
  }
}

TEST_P(FlatTest, SumOfSquaresShowsWhatIsNotFinite) {
  for (const int64_t place : {0, 500, 998}) {
    std::vector<float> x = random_values(999, 3);
    x[place] = INFINITY;
    EXPECT_EQ(flat().sum_of_squares(x.data(), 0, 999), kInfinity);
    x[place] = NAN;
    EXPECT_TRUE(std::isnan(flat().sum_of_squares(x.data(), 0, 999)));
  }
}

TEST_P(FlatTest, AdamwCopyRoundsToNearestEvenWithinItsRange) {
  std::vector<float> x = random_values(kCount, 4, 100);
  const float cases[] = {0.0F,     -0.0F,    INFINITY,       -INFINITY,      3.4e38F,
                         1.00390F, 1.00391F, 1 + 1.0F / 256, 1 + 3.0F / 256, NAN};
  for (size_t i = 0; i < std::size(cases); ++i) x[i] = x[kCount - 5 - i] = cases[i];
  std::vector<Bf16> expected(kCount), actual(kCount);
  for (int64_t i = 2; i < 299; ++i) expected[i] = to_bf16(x[i]);
  std::vector<float> grad(kCount), first(kCount), second(kCount);
  AdamwStep still{x.data(), grad.data(), first.data(), second.data(), actual.data()};
  still.eps = 1;  // with zero gradients the values don't change
  flat().adamw(still, 2, 299);
  expect_same_bits(actual, expected);
}

TEST_P(FlatTest, AddBf16AddsWithinItsRange) {
  const std::vector<Bf16> from = random_values<Bf16>(kCount, 5);
  std::vector<float> to = random_values(kCount, 6), expected = to;
  for (int64_t i = 2; i < 299; ++i) expected[i] += static_cast<float>(to_double(from[i]));
  flat().add_bf16(from.data(), to.data(), 2, 299);
  expect_same_bits(to, expected);
}

}  // namespace
}  // namespace wavroute::kernels
