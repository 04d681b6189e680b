// Biases, rows of a table, the parameters of routers and the end of a step.
#include "kernels/cuda/rows.h"

#include <limits>
#include <memory>

#include "kernels/cuda/routers.h"
#include "kernels/cuda/step.h"
#include "tests/kernels/cuda/runs.h"
#include "tests/kernels/kernel_test.h"

namespace wavroute::kernels::cuda {
namespace {

constexpr emulator::Order kOrders[] = {emulator::Order::kBackwards, emulator::Order::kShuffled};

template <typename T>
T& at(std::vector<T>& values, int64_t i) {
  return values[static_cast<size_t>(i)];
}
template <typename T>
const T& at(const std::vector<T>& values, int64_t i) {
  return values[static_cast<size_t>(i)];
}

TEST(Biases, AreAddedAndTheirGradientIsTheSumOfTheRows) {
  for_both_types([]<typename C>() {
    for (const int64_t rows : {1, 3, 37}) {
      constexpr int64_t kWidth = 300;
      const auto values = random_values<C>(rows * kWidth, 1);
      const auto bias = random_values(kWidth, 2);
      std::vector<double> sums(kWidth, 1.0), expected;
      for (int64_t i = 0; i < rows * kWidth; ++i) {
        expected.push_back(to_double(at(values, i)) + at(bias, i % kWidth));
        at(sums, i % kWidth) += to_double(at(values, i));
      }
      for (const auto order : kOrders) {
        run_in_order(order);
        std::vector<C> added = values;
        add_bias<C>({added.data(), kWidth}, rows, bias.data(), kWidth, nullptr);
        wait_for_runs();
        expect_near(added, expected, std::is_same_v<C, float> ? 1e-6 : 4e-3);
        std::vector<float> grad(kWidth, 1.0F);
        std::vector<float> scratch(static_cast<size_t>(bias_grad_floats(rows, kWidth)), NAN);
        add_bias_grad<C>({values.data(), kWidth}, rows, grad.data(), kWidth, scratch.data(),
                         nullptr);
        wait_for_runs();
        expect_near(grad, sums, 1e-6);
      }
    }
  });
}

// Ids that occur once, in runs within a part of 32, across two and across many.
TEST(RowsOfATable, AreAddedByTheirIds) {
  for (const int64_t d : {3, 260}) {
    for (const std::vector<int64_t>& counts : {std::vector<int64_t>{1},
                                               {32, 32},
                                               {1, 30, 2, 31, 40, 1},
                                               {200},
                                               {5, 150, 33, 64, 3, 1}}) {
      std::vector<int64_t> ids;
      for (size_t i = 0; i < counts.size(); ++i) {
        ids.insert(ids.end(), static_cast<size_t>(counts[i]), static_cast<int64_t>(2 * i));
      }
      const auto count = static_cast<int64_t>(ids.size());
      std::vector<int64_t> order(ids.size());
      for (int64_t i = 0; i < count; ++i) at(order, i) = count - 1 - i;
      const auto rows = random_values(count * d, 3);
      const auto table = random_values(2 * std::ssize(counts) * d, 4);
      std::vector<double> expected = to_double(table);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t c = 0; c < d; ++c)
          at(expected, at(ids, i) * d + c) += at(rows, at(order, i) * d + c);
      }
      for (const auto schedule : kOrders) {
        run_in_order(schedule);
        std::vector<float> scratch(static_cast<size_t>(add_rows_floats(count, d)), NAN);
        std::vector<float> actual = table;
        add_rows({d,
                  count,
                  ids.data(),
                  order.data(),
                  {rows.data(), d},
                  {actual.data(), d},
                  scratch.data()},
                 nullptr);
        wait_for_runs();
        expect_near(actual, expected, 1e-6);
      }
    }
  }
}

// More routers and sources than a launch is given; the second router reads nothing.
TEST(Routers, AreGatheredAndGetTheirGradients) {
  constexpr int64_t kCount = 35, kSources = 1030, kD = 300, kSums = 3;
  const auto queries = random_values(kCount * kD, 1), gains = random_values(kCount * kD, 2);
  const auto biases = random_values(kCount * 2, 3);
  std::vector<float> query_grads(kCount * kD, 1.0F), gain_grads(kCount * kD, 1.0F);
  std::vector<float> bias_grads(kCount * 2, 1.0F);
  std::vector<RouterPointers> routers;
  for (int64_t r = 0; r < kCount; ++r) {
    routers.push_back({&at(queries, r * kD), &at(gains, r * kD), &at(biases, 2 * r),
                       &at(query_grads, r * kD), &at(gain_grads, r * kD), &at(bias_grads, 2 * r)});
  }
  std::vector<int64_t> sums;
  for (int64_t j = 0; j < kSources; ++j) sums.push_back(j == 0 ? 0 : (j - 1) % kSums);
  const auto t = random_values(kCount * kD, 4), dlogits = random_values(kCount * kSources, 5);
  std::vector<double> rows, offered, running,
      expected_query(query_grads.begin(), query_grads.end()), expected_gain = expected_query,
                                                              expected_bias(kCount * 2, 1.0);
  for (int64_t i = 0; i < kCount * kD; ++i) {
    rows.push_back(i / kD == 1 ? 0.0 : double{at(queries, i)} * at(gains, i));
    at(expected_query, i) += double{at(gains, i)} * at(t, i);
    at(expected_gain, i) += double{at(queries, i)} * at(t, i);
  }
  for (int64_t i = 0; i < kCount * kSources; ++i) {
    const int64_t r = i / kSources, sum = at(sums, i % kSources);
    offered.push_back(sum == 0 || r == 1 ? 0.0 : at(biases, 2 * r + sum - 1));
    if (sum > 0) at(expected_bias, 2 * r + sum - 1) += at(dlogits, i);
  }
  for (int64_t i = 0; i < kCount * kSums; ++i) {
    const int64_t r = i / kSums, sum = i % kSums;
    running.push_back(sum == 0 || r == 1 ? 0.0 : at(biases, 2 * r + sum - 1));
  }
  run_in_order(emulator::Order::kShuffled);
  add_router_grads({routers.data(),
                    sums.data(),
                    kCount,
                    kSources,
                    kD,
                    {t.data(), kD},
                    {dlogits.data(), kSources}},
                   nullptr);
  wait_for_runs();
  expect_near(query_grads, expected_query, 1e-6);
  expect_near(gain_grads, expected_gain, 1e-6);
  expect_near(bias_grads, expected_bias, 1e-5);
  routers[1] = {};
  std::vector<float> query(kCount * kD, NAN), bias(kCount * kSources, NAN),
      own(kCount * kSums, NAN);
  gather_routers({routers.data(),
                  sums.data(),
                  kCount,
                  kSources,
                  kSums,
                  kD,
                  {query.data(), kD},
                  {bias.data(), kSources},
                  {own.data(), kSums}},
                 nullptr);
  wait_for_runs();
  expect_near(query, rows, 1e-6);
  expect_near(bias, offered, 0.0);
  expect_near(own, running, 0.0);
}

// What judge_step reads and writes, in memory that kernels reach.
struct Step {
  StepInput input;
  StepSums sums;
  AdamwScalars scalars;
  StepOutcome outcome;
  std::vector<double> squares;
  void judge() {
    judge_step(&input, &sums, squares.data(), std::ssize(squares), &scalars, &outcome, nullptr);
    wait_for_runs();
  }
};

TEST(EndOfAStep, ClipsByTheNormAndKeepsItsNumbers) {
  for (const double clip : {0.0, 2.5, 10.0}) {
    const auto step = std::make_unique<Step>();
    step->input = {0.01, clip, 0.1F, 0.05F};
    step->sums = {3.0, 0.5, 0.0};
    step->squares = {9.0, 16.0};
    step->judge();
    EXPECT_EQ(step->outcome.grad_norm, 5.0);
    EXPECT_EQ(step->outcome.sums.loss, 3.0);
    EXPECT_EQ(step->outcome.is_finite, 1);
    EXPECT_EQ(step->scalars.grad_scale, clip == 2.5 ? 0.5F : 1.0F);
    EXPECT_EQ(step->scalars.lr, 0.01F);
    EXPECT_EQ(step->scalars.correction1, 0.1F);
    EXPECT_EQ(step->scalars.correction2, 0.05F);
  }
}

TEST(EndOfAStep, IsNotFiniteForAnyOfItsNumbersNorForThoseOfAStepBefore) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto is_finite = [](const StepSums& sums, double square, int32_t before = 1) {
    const auto step = std::make_unique<Step>();
    step->input = {0.01, 1.0, 0.1F, 0.05F};
    step->sums = sums;
    step->squares = {square};
    step->scalars.is_finite = before;
    step->judge();
    EXPECT_EQ(step->scalars.is_finite, step->outcome.is_finite);
    return step->outcome.is_finite == 1;
  };
  EXPECT_TRUE(is_finite({1.0, 0.0, 0.0}, 4.0));
  EXPECT_FALSE(is_finite({NAN, 0.0, 0.0}, 4.0));
  EXPECT_FALSE(is_finite({-kInfinity, 0.0, 0.0}, 4.0));
  EXPECT_FALSE(is_finite({1.0, NAN, 0.0}, 4.0));
  EXPECT_FALSE(is_finite({1.0, 0.0, 0.0}, NAN));
  EXPECT_FALSE(is_finite({1.0, 0.0, 0.0}, 1e39));  // a float can't hold it
  EXPECT_FALSE(is_finite({1.0, 0.0, 0.0}, 4.0, /*before=*/0));
}

}  // namespace
}  // namespace wavroute::kernels::cuda
