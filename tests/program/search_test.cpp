// Searches over layer programs, on losses whose best programs are known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "program/greedy.h"
#include "program/tree_search.h"

namespace wavroute {
namespace {

int64_t runs(const Layers& program, int64_t layer) { return std::ranges::count(program, layer); }

// Each layer left out costs its own number: the best program of a length lacks the cheapest layers.
double additive_loss(const Layers& program, const std::vector<double>& costs) {
  double loss = 1.0;
  for (size_t i = 0; i < costs.size(); ++i) {
    if (runs(program, static_cast<int64_t>(i)) == 0) loss += costs[i];
  }
  return loss;
}

const Trial* of_length(const std::vector<Trial>& best, size_t length) {
  const auto found =
      std::ranges::find(best, length, [](const Trial& trial) { return trial.layers.size(); });
  return found == best.end() ? nullptr : &*found;
}

TEST(Trials, EvaluateAProgramOnceAndCountTheBudget) {
  int evaluations = 0;
  Trials trials(2, [&](const Layers& layers) {
    ++evaluations;
    return static_cast<double>(layers.size());
  });
  EXPECT_EQ(trials.loss_of({0, 1}), 2.0);
  EXPECT_EQ(trials.loss_of({0, 1}), 2.0);
  EXPECT_FALSE(trials.is_spent());
  EXPECT_EQ(trials.loss_of({0}), 1.0);
  EXPECT_TRUE(trials.is_spent());
  EXPECT_EQ(evaluations, 2);
}

TEST(Trials, TheBestByLengthAreThoseThatNoShorterOneBeats) {
  const std::vector<Trial> trials = {
      {{0, 1, 2}, 1.0}, {{0, 1}, 1.5}, {{1, 2}, 1.4}, {{0, 1, 2, 2}, 1.0}, {{0}, 3.0}};
  const std::vector<Trial> best = best_by_length(trials);
  ASSERT_EQ(best.size(), 3U);
  EXPECT_EQ(best[0].layers, (Layers{0}));
  EXPECT_EQ(best[1].layers, (Layers{1, 2}));
  EXPECT_EQ(best[2].layers, (Layers{0, 1, 2}));
}

TEST(GreedyRemoval, RemovesTheCheapestLayersOfAnAdditiveLoss) {
  const std::vector<double> costs = {9.0, 0.1, 5.0, 0.3, 0.2, 7.0};
  Trials trials(1 + 6 + 5 + 4,
                [&](const Layers& program) { return additive_loss(program, costs); });
  remove_greedily(6, trials);
  EXPECT_TRUE(trials.is_spent());
  const std::vector<Trial> best = best_by_length(trials.all());
  EXPECT_EQ(of_length(best, 5)->layers, (Layers{0, 2, 3, 4, 5}));
  EXPECT_EQ(of_length(best, 4)->layers, (Layers{0, 2, 3, 5}));
  EXPECT_EQ(of_length(best, 3)->layers, (Layers{0, 2, 5}));
}

TEST(GreedyRemoval, EndsWithOneLayer) {
  Trials trials(1000, [](const Layers& program) { return static_cast<double>(program.size()); });
  remove_greedily(4, trials);
  EXPECT_EQ(trials.all().size(), size_t{1 + 4 + 3 + 2});
}

// Layer 4 is the cheapest to leave out, and without it every other one costs much more: whoever
// takes it first is trapped.
double trap_loss(const Layers& program) {
  const double cost = runs(program, 4) == 0 ? 0.8 : 0.3;
  double loss = runs(program, 4) == 0 ? 1.1 : 1.0;
  for (int64_t layer = 0; layer < 12; ++layer) {
    if (layer != 4 && runs(program, layer) == 0) loss += cost;
  }
  return loss;
}

TEST(TreeSearch, LeavesATrapThatGreedyRemovalTakes) {
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    Trials greedy(120, trap_loss), tree(120, trap_loss);
    remove_greedily(12, greedy);
    search_tree({.layers = 12, .seed = seed}, tree);
    EXPECT_DOUBLE_EQ(of_length(best_by_length(greedy.all()), 9)->loss, 1.1 + 2 * 0.8);
    const std::vector<Trial> best = best_by_length(tree.all());
    const Trial* found = of_length(best, 9);
    ASSERT_NE(found, nullptr) << "seed " << seed;
    EXPECT_DOUBLE_EQ(found->loss, 1.0 + 3 * 0.3) << "seed " << seed;
  }
}

TEST(TreeSearch, RepeatsALayerWhereThatHelps) {
  Trials trials(60, [](const Layers& program) {
    return 2.0 - 0.5 * static_cast<double>(runs(program, 3) - 1) +
           0.1 * std::abs(static_cast<double>(program.size()) - 9.0);
  });
  search_tree({.layers = 8}, trials);
  const auto best = std::ranges::min_element(trials.all(), {}, &Trial::loss);
  EXPECT_EQ(best->layers, (Layers{0, 1, 2, 3, 3, 4, 5, 6, 7}));
}

TEST(TreeSearch, SpendsItsBudgetOnDifferentProgramsWithinTheBounds) {
  const auto loss = [](const Layers& program) { return 1.0 / static_cast<double>(program.size()); };
  Trials trials(200, loss);
  search_tree({.layers = 10, .most_repeats = 2, .longest = 11}, trials);
  EXPECT_EQ(trials.all().size(), 200U);
  std::set<Layers> seen;
  for (const Trial& trial : trials.all()) {
    EXPECT_TRUE(seen.insert(trial.layers).second);
    EXPECT_TRUE(std::ranges::is_sorted(trial.layers));
    EXPECT_GE(trial.layers.size(), 1U);
    EXPECT_LE(trial.layers.size(), 11U);
    for (int64_t layer = 0; layer < 10; ++layer) EXPECT_LE(runs(trial.layers, layer), 2);
  }
}

TEST(TreeSearch, IsTheSameForTheSameSeedAndAnotherForAnotherOne) {
  const auto tried = [](uint64_t seed) {
    Trials trials(80, trap_loss);
    search_tree({.layers = 12, .seed = seed}, trials);
    std::vector<Layers> programs;
    for (const Trial& trial : trials.all()) programs.push_back(trial.layers);
    return programs;
  };
  EXPECT_EQ(tried(1), tried(1));
  EXPECT_NE(tried(1), tried(2));
}

TEST(TreeSearch, EndsWhereEveryProgramIsKnown) {
  Trials trials(1000, [](const Layers& program) { return static_cast<double>(program.size()); });
  search_tree({.layers = 2, .most_repeats = 1, .longest = 2}, trials);
  EXPECT_EQ(trials.all().size(), 3U);  // both layers, or one of them
}

}  // namespace
}  // namespace wavroute
