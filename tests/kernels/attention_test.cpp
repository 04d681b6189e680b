#include <cmath>
#include <limits>
#include <memory>
#include <new>

#include "tests/kernels/attention_reference.h"
#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels {
namespace {

// Relative to the largest element. Sums of up to 300 products of floats: some 1e-6; bf16 stores 8
// bits, so that every result, and the y that the backward pass reads, is off by up to 2^-9.
template <typename C>
constexpr double kTolerance = std::is_same_v<C, float> ? 1e-5 : 1e-2;

// Widths below, at and above one vector; lengths on both sides of a tile, a block of queries and a
// tile of keys; one and several query heads for a key-value head.
std::vector<AttentionShape> shapes() {
  return {{1, 1, 1, 1, 2},    {2, 1, 4, 1, 16},   {3, 5, 2, 1, 6},    {1, 6, 1, 1, 32},
          {1, 48, 2, 2, 16},  {2, 49, 4, 1, 32},  {1, 64, 2, 2, 64},  {1, 97, 2, 2, 80},
          {1, 70, 1, 1, 128}, {2, 130, 4, 2, 64}, {1, 257, 1, 1, 24}, {1, 300, 2, 1, 2}};
}
std::string words(const AttentionShape& s) {
  return "B " + std::to_string(s.batch) + " T " + std::to_string(s.length) + " H " +
         std::to_string(s.heads) + " G " + std::to_string(s.kv_heads) + " w " +
         std::to_string(s.width);
}

// Columns first .. first + count - 1 of rows of `row` numbers.
template <typename T>
std::vector<T> columns(const std::vector<T>& values, int64_t row, int64_t first, int64_t count) {
  std::vector<T> part;
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    if (i % row >= first && i % row < first + count) part.push_back(values[static_cast<size_t>(i)]);
  }
  return part;
}

// Runs the kernels on arrays of exactly the size that they may touch; results and scratch start as
// NaN, so that a missing write, or a read before it, shows.
template <typename C>
class Pass {
 public:
  Pass(const Kernels& kernels, const AttentionShape& shape, std::vector<C> qkv)
      : table_(kernels.attention->of<C>()),
        shape_(shape),
        qkv_(std::move(qkv)),
        cos_(table(shape, std::cos)),
        sin_(table(shape, std::sin)),
        y(y_size(shape), stored<C>(kNan)),
        lse(static_cast<size_t>(shape.batch * shape.heads * shape.length), kNan),
        dqkv(qkv_size(shape), stored<C>(kNan)) {
    floats_ = static_cast<size_t>(table_.scratch_floats(shape));
    const size_t all = floats_ + 2 * kGuard;
    memory_.reset(static_cast<float*>(::operator new(all * sizeof(float), kAlignment)));
    std::fill_n(memory_.get(), all, kNan);
  }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;
  // Sanitizers don't see writes from tiles: memory around the scratch must be unchanged.
  ~Pass() {
    for (size_t i = 0; i < kGuard; ++i) {
      EXPECT_TRUE(std::isnan(memory_[i])) << i;
      EXPECT_TRUE(std::isnan(memory_[kGuard + floats_ + i])) << i;
    }
  }

  void forward(int64_t begin, int64_t end) {
    table_.forward({shape_, qkv_.data(), cos_.data(), sin_.data(), y.data(), lse.data()}, begin,
                   end, memory_.get() + kGuard);
  }
  void backward(const std::vector<C>& dy, int64_t begin, int64_t end) {
    table_.backward({shape_, qkv_.data(), cos_.data(), sin_.data(), y.data(), dy.data(), lse.data(),
                     dqkv.data()},
                    begin, end, memory_.get() + kGuard);
  }
  [[nodiscard]] int64_t units() const { return shape_.batch * shape_.kv_heads; }

 private:
  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  static constexpr std::align_val_t kAlignment{64};
  static constexpr size_t kGuard = 4096;  // floats on each side
  struct Free {
    void operator()(float* p) const { ::operator delete(p, kAlignment); }
  };
  const AttentionKernels<C>& table_;
  AttentionShape shape_;
  std::vector<C> qkv_;
  std::vector<float> cos_, sin_;
  size_t floats_ = 0;
  std::unique_ptr<float[], Free> memory_;

 public:
  std::vector<C> y;
  std::vector<float> lse;
  std::vector<C> dqkv;
};

TEST(AttentionReference, GradientAgreesWithFiniteDifferences) {
  const AttentionShape shape{2, 5, 4, 2, 6};
  const auto qkv = random_values<double>(static_cast<int64_t>(qkv_size(shape)), 1);
  const auto dy = random_values<double>(static_cast<int64_t>(y_size(shape)), 2);
  const auto loss = [&](const std::vector<double>& values) {
    const Reference reference(shape, values);
    double sum = 0;
    for (size_t i = 0; i < dy.size(); ++i) sum += reference.y[i] * dy[i];
    return sum;
  };
  const std::vector<double> gradient = Reference(shape, qkv).gradient(dy);
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < qkv.size(); ++i) {
    auto above = qkv, below = qkv;
    above[i] += kStep;
    below[i] -= kStep;
    ASSERT_NEAR(gradient[i], (loss(above) - loss(below)) / (2 * kStep), 1e-8) << "element " << i;
  }
}

class AttentionTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, AttentionTest, every_isa(), isa_name);

TEST_P(AttentionTest, ForwardIsTheFormula) {
  for (const AttentionShape& shape : shapes()) {
    SCOPED_TRACE(words(shape));
    for_both_types([&]<typename C>() {
      const auto qkv = random_values<C>(static_cast<int64_t>(qkv_size(shape)), 3, 2);
      const Reference expected(shape, to_double(qkv));
      Pass<C> run(GetParam(), shape, qkv);
      run.forward(0, run.units());
      expect_near(run.y, expected.y, kTolerance<C>);
      // The logsumexp is a float whatever C is, but on tiles the scores come from rounded factors;
      // it may be near 0, the scores are about 1.
      const bool rounded = GetParam().isa == Isa::kAmxBf16 && std::is_same_v<C, Bf16>;
      expect_near(run.lse, expected.lse, rounded ? kTolerance<Bf16> : kTolerance<float>, 1);
    });
  }
}

TEST_P(AttentionTest, BackwardIsTheGradientOfTheFormula) {
  for (const AttentionShape& shape : shapes()) {
    SCOPED_TRACE(words(shape));
    for_both_types([&]<typename C>() {
      const auto qkv = random_values<C>(static_cast<int64_t>(qkv_size(shape)), 4, 2);
      const auto dy = random_values<C>(static_cast<int64_t>(y_size(shape)), 5);
      const auto expected = Reference(shape, to_double(qkv)).gradient(to_double(dy));
      Pass<C> run(GetParam(), shape, qkv);
      run.forward(0, run.units());
      run.backward(dy, 0, run.units());
      // Queries, keys and values each on their own scale; the floor is for T = 1, where the first
      // two gradients vanish.
      const int64_t heads[] = {0, shape.heads, shape.heads + shape.kv_heads,
                               shape.heads + 2 * shape.kv_heads};
      for (int part = 0; part < 3; ++part) {
        SCOPED_TRACE("part " + std::to_string(part));
        const int64_t first = heads[part] * shape.width;
        const int64_t count = heads[part + 1] * shape.width - first;
        expect_near(columns(run.dqkv, shape.row(), first, count),
                    columns(expected, shape.row(), first, count), kTolerance<C>, 0.1);
      }
    });
  }
}

TEST_P(AttentionTest, UnitsDoNotDependOnTheirRange) {
  const AttentionShape shape{2, 75, 4, 2, 32};
  for_both_types([&]<typename C>() {
    const auto qkv = random_values<C>(static_cast<int64_t>(qkv_size(shape)), 6, 2);
    const auto dy = random_values<C>(static_cast<int64_t>(y_size(shape)), 7);
    Pass<C> together(GetParam(), shape, qkv), apart(GetParam(), shape, qkv);
    together.forward(0, together.units());
    together.backward(dy, 0, together.units());
    for (int64_t unit = apart.units() - 1; unit >= 0; --unit) apart.forward(unit, unit + 1);
    for (int64_t unit = apart.units() - 1; unit >= 0; --unit) apart.backward(dy, unit, unit + 1);
    expect_same_bits(apart.y, together.y);
    expect_same_bits(apart.lse, together.lse);
    expect_same_bits(apart.dqkv, together.dqkv);
  });
}

TEST_P(AttentionTest, AnEmptyRangeWritesNothing) {
  const AttentionShape shape{1, 9, 2, 2, 16};
  for_both_types([&]<typename C>() {
    Pass<C> run(GetParam(), shape, random_values<C>(static_cast<int64_t>(qkv_size(shape)), 8));
    const auto dy = random_values<C>(static_cast<int64_t>(y_size(shape)), 9);
    const Pass<C> untouched(GetParam(), shape, {});
    run.forward(1, 1);
    run.backward(dy, 2, 2);
    expect_same_bits(run.y, untouched.y);
    expect_same_bits(run.lse, untouched.lse);
    expect_same_bits(run.dqkv, untouched.dqkv);
  });
}

TEST_P(AttentionTest, ALaterTokenChangesNoEarlierBit) {
  const AttentionShape shape{1, 150, 2, 1, 16};
  const int64_t row = shape.row(), y_row = shape.heads * shape.width;
  for_both_types([&]<typename C>() {
    const auto qkv = random_values<C>(static_cast<int64_t>(qkv_size(shape)), 10, 2);
    Pass<C> before(GetParam(), shape, qkv);
    before.forward(0, 1);
    for (const int64_t changed : {1, 47, 48, 50, 128, 149}) {
      auto other = qkv;
      for (int64_t i = changed * row; i < (changed + 1) * row; ++i) {
        other[static_cast<size_t>(i)] = stored<C>(5);
      }
      Pass<C> after(GetParam(), shape, other);
      after.forward(0, 1);
      after.y.resize(static_cast<size_t>(changed * y_row));
      expect_same_bits(after.y, {before.y.begin(), before.y.begin() + changed * y_row});
    }
  });
}

TEST_P(AttentionTest, ScoresFarApartPickOneValue) {
  // Equal queries and keys but for one key of 100 times the length: scores of about +-7 and 700.
  const AttentionShape shape{1, 40, 1, 1, 16};
  for_both_types([&]<typename C>() {
    std::vector<C> qkv(qkv_size(shape), stored<C>(0));
    for (int64_t t = 0; t < shape.length; ++t) {
      C* const token = &qkv[static_cast<size_t>(t * shape.row())];
      // Component 7 turns by t / 3162: there is hardly any rotation.
      token[7] = stored<C>(5);
      token[16 + 7] = stored<C>(t == 20 ? 600 : -6);
      token[32] = stored<C>(static_cast<double>(t));
    }
    Pass<C> run(GetParam(), shape, qkv);
    run.forward(0, 1);
    run.backward(std::vector<C>(y_size(shape), stored<C>(1)), 0, 1);
    for (int64_t t = 20; t < shape.length; ++t) {
      EXPECT_EQ(to_double(run.y[static_cast<size_t>(t * shape.width)]), 20) << "position " << t;
    }
    for (const C x : run.dqkv) ASSERT_TRUE(std::isfinite(to_double(x)));
  });
}

}  // namespace
}  // namespace wavroute::kernels
