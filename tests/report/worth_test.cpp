// What a table says that its differences are worth.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "report/holm.h"
#include "report/scaling_fit.h"
#include "report/summary_words.h"
#include "report/table.h"
#include "run_folder_maker.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Cell cell(const std::string& label, int64_t depth, int64_t seed, double loss) {
  Cell result;
  result.label = result.scheme = label;
  result.depth = depth;
  result.seed = seed;
  result.status = CellStatus::kFinished;
  result.val_loss = loss;
  result.parameters = 1000.0;
  return result;
}

Cell with(Cell cell, CellRole role, double value) {
  cell.role = role;
  (role == CellRole::kBudget ? cell.budget : cell.lr) = value;
  return cell;
}

const TableRow& row(const Table& table, const std::string& label, int64_t depth = 12) {
  const auto found = std::ranges::find_if(
      table.rows, [&](const TableRow& r) { return r.label == label && r.depth == depth; });
  if (found == table.rows.end()) throw std::runtime_error("no row " + label);
  return *found;
}

// Three seeds of a label at a depth: `loss` and a spread of the seeds.
void add_seeds(Comparison& comparison, const std::string& label, int64_t depth, double loss,
               double spread) {
  for (const int64_t seed : {1, 2, 3}) {
    const double shift = static_cast<double>(seed - 2) * spread;
    comparison.cells.push_back(cell(label, depth, seed, loss + shift));
  }
}

TEST(Worth, PValuesAreAdjustedOverAllRowsOfAllDepths) {
  Comparison comparison;
  for (const int64_t depth : {12, 24}) {
    add_seeds(comparison, "prenorm", depth, 2.0, 0.0);
    add_seeds(comparison, "haares", depth, 1.99, 0.002 * static_cast<double>(depth));
    add_seeds(comparison, "wav", depth, 1.9, 0.001);
  }
  const Table table = make_table(comparison);
  std::vector<double> raw, adjusted;
  for (const TableRow& r : table.rows) {
    if (r.is_reference) continue;
    raw.push_back(r.difference->p.value());
    adjusted.push_back(r.p_holm.value());
  }
  EXPECT_EQ(raw.size(), 4U);
  EXPECT_EQ(adjusted, holm_adjusted(raw));
  EXPECT_EQ(table.comparisons, 4U);
  EXPECT_TRUE(row(table, "wav").is_shown());
  EXPECT_FALSE(row(table, "haares").is_shown());
}

TEST(Worth, ADifferenceThatOneOfManyComparisonsMayShowByChanceIsNotClaimed) {
  Comparison comparison;
  add_seeds(comparison, "prenorm", 12, 2.0, 0.0);
  add_seeds(comparison, "wav", 12, 1.97, 0.01);  // p = 0.035 alone
  EXPECT_THAT(summary_paragraph(comparison, make_table(comparison)),
              HasSubstr("lower than prenorm's for wav"));
  for (const char* label : {"a", "b"}) add_seeds(comparison, label, 12, 2.0, 0.1);
  const Table table = make_table(comparison);
  EXPECT_TRUE(row(table, "wav").difference->excludes_zero());
  EXPECT_NEAR(*row(table, "wav").p_holm, 3 * 0.0352, 1e-3);
  const std::string words = summary_paragraph(comparison, table);
  EXPECT_THAT(words, HasSubstr("no difference shown to prenorm for wav"));
  EXPECT_THAT(words, Not(HasSubstr("lower than")));
}

TEST(Worth, TheNoiseFloorIsTheReferencesAndStandsAtItsWholeDepth) {
  Comparison comparison;
  add_seeds(comparison, "prenorm", 12, 2.0, 0.01);
  add_seeds(comparison, "wav", 12, 1.9, 0.5);
  const Table table = make_table(comparison);
  // t(0.975, 2) 0.01 sqrt(2 / 3)
  EXPECT_NEAR(*row(table, "wav").noise_floor, 4.302653 * 0.01 * std::sqrt(2.0 / 3.0), 1e-7);
  EXPECT_EQ(row(table, "wav").noise_floor, row(table, "prenorm").noise_floor);
  EXPECT_THAT(summary_paragraph(comparison, table), HasSubstr("noise floor"));
}

// Evaluations after 100, 200, ... tokens.
void give_curve(Cell& cell, const std::vector<double>& losses) {
  for (std::size_t i = 0; i < losses.size(); ++i) {
    cell.curve.push_back({100.0 * static_cast<double>(i + 1), losses[i]});
  }
}

TEST(Worth, TokensToTargetAreThoseOfTheMeanCurveToTheReferencesLoss) {
  Comparison comparison;
  for (const int64_t seed : {1, 2}) {
    const double shift = seed == 1 ? 0.5 : -0.5;
    Cell base = cell("prenorm", 12, seed, 2.0 + shift), wav = cell("wav", 12, seed, 1.0 + shift);
    give_curve(base, {4.0 + shift, 3.0 + shift, 2.0 + shift});
    give_curve(wav, {3.5 + shift, 1.5 + shift, 1.0 + shift});
    comparison.cells.push_back(base);
    comparison.cells.push_back(wav);
  }
  comparison.speed = {{"prenorm", 12, 1000.0, 1.0, {}}, {"wav", 12, 500.0, 2.0, {}}};
  const Table table = make_table(comparison);
  EXPECT_DOUBLE_EQ(*row(table, "prenorm").tokens_to_target, 300.0);
  // 3.5 to 1.5 passes 2.0 after three quarters.
  EXPECT_DOUBLE_EQ(*row(table, "wav").target_loss, 2.0);
  EXPECT_DOUBLE_EQ(*row(table, "wav").tokens_to_target, 175.0);
  EXPECT_DOUBLE_EQ(*row(table, "wav").seconds_to_target, 0.35);

  comparison.target_loss = 1.5;
  const Table given = make_table(comparison);
  EXPECT_FALSE(row(given, "prenorm").tokens_to_target);
  EXPECT_DOUBLE_EQ(*row(given, "wav").tokens_to_target, 200.0);
  EXPECT_THAT(terminal_table(given), HasSubstr("not reached"));
}

// A baseline on 1.5 + 0.8 C^-0.35 at these budgets, and a scheme with the loss of 1.4 budgets.
Comparison with_budgets(const std::vector<double>& budgets) {
  const ScalingFit law{1.5, 0.8, 0.35};
  Comparison comparison;
  add_seeds(comparison, "prenorm", 12, law.loss_at(1.0), 0.001);
  add_seeds(comparison, "wav", 12, law.loss_at(1.4), 0.001);
  for (const double budget : budgets) {
    for (const int64_t seed : {1, 2, 3}) {
      const double shift = static_cast<double>(seed - 2) * 0.001;
      comparison.cells.push_back(
          with(cell("prenorm", 12, seed, law.loss_at(budget) + shift), CellRole::kBudget, budget));
    }
  }
  comparison.speed = {{"prenorm", 12, 1000.0, 1.0, {}}, {"wav", 12, 900.0, 2.0, {}}};
  return comparison;
}

TEST(Worth, EqualLossComputeIsWhatTheBaselinesLawAsksForTheSchemesLoss) {
  Comparison comparison = with_budgets({0.5, 2.0});
  const Table table = make_table(comparison);
  EXPECT_EQ(table.compared, 2U);
  EXPECT_NEAR(*row(table, "wav").equal_loss_compute, 1.4, 1e-3);
  EXPECT_NEAR(*row(table, "wav").effective_speedup, 1.4 * 0.9, 1e-3);
  EXPECT_FALSE(row(table, "wav").is_extrapolated);
  EXPECT_FALSE(row(table, "prenorm").equal_loss_compute);
  EXPECT_THAT(summary_paragraph(comparison, table), HasSubstr("1.40 times the compute"));

  // The budget of a seed that has none left is no part of the fit.
  comparison.cells[6].status = CellStatus::kDiverged;
  EXPECT_NEAR(*row(make_table(comparison), "wav").equal_loss_compute, 1.4, 1e-3);
}

TEST(Worth, AnEqualLossComputeBeyondTheLargestBudgetSaysSo) {
  const Table table = make_table(with_budgets({0.25, 0.5}));
  EXPECT_NEAR(*row(table, "wav").equal_loss_compute, 1.4, 1e-2);
  EXPECT_TRUE(row(table, "wav").is_extrapolated);
  EXPECT_THAT(terminal_table(table), HasSubstr("1.40*"));
}

TEST(Worth, FewerThanThreeFinishedBudgetsGiveNoEqualLossComputeAndAReason) {
  for (const auto& budgets : {std::vector<double>{}, std::vector<double>{2.0}}) {
    const Table table = make_table(with_budgets(budgets));
    EXPECT_FALSE(row(table, "wav").equal_loss_compute);
    EXPECT_THAT(row(table, "wav").equal_loss_why, HasSubstr("3 budgets or more"));
    EXPECT_EQ(terminal_table(table).find("equal loss"), std::string::npos);
  }
  const auto json = table_rows(make_table(with_budgets({})));
  EXPECT_TRUE(json.at(1).at("equal_loss_compute").is_null());
}

TEST(Worth, ASharesOfParametersIsOfTheReferences) {
  Comparison comparison;
  comparison.cells = {cell("prenorm", 12, 1, 2.0), cell("wav", 12, 1, 1.9),
                      cell("prenorm-h5", 12, 1, 1.95)};
  comparison.cells[1].parameters = 1063.0;
  comparison.cells[2].parameters = 1062.0;
  comparison.cells[2].wider_for = {"wav"};
  const Table table = make_table(comparison);
  EXPECT_NEAR(*row(table, "wav").parameter_share, 0.063, 1e-12);
  EXPECT_EQ(*row(table, "prenorm").parameter_share, 0.0);
  EXPECT_THAT(terminal_table(table), HasSubstr("+6.3 %"));
  EXPECT_THAT(summary_paragraph(comparison, table), HasSubstr("wav 6.3 % (as many as prenorm-h5)"));
}

TEST(Worth, TheOrderOfADepthIsHeldAgainstTheDeepest) {
  Comparison comparison;
  const auto add = [&](int64_t depth, double prenorm, double haares, double wav) {
    comparison.cells.push_back(cell("prenorm", depth, 1, prenorm));
    comparison.cells.push_back(cell("haares", depth, 1, haares));
    comparison.cells.push_back(cell("wav", depth, 1, wav));
  };
  add(12, 2.0, 1.9, 1.95);
  add(24, 2.0, 1.9, 1.8);
  add(48, 1.9, 1.8, 1.7);
  const Table table = make_table(comparison);
  ASSERT_EQ(table.decisions.size(), 2U);
  EXPECT_EQ(table.decisions[0].depth, 12);
  EXPECT_EQ(table.decisions[0].deepest, 48);
  EXPECT_EQ(table.decisions[0].accuracy.agree, 2U);  // of haares and wav another is lower
  EXPECT_EQ(table.decisions[1].accuracy.agree, 3U);
  EXPECT_DOUBLE_EQ(table_decisions(table).at(0).at("accuracy").get<double>(), 2.0 / 3.0);
  EXPECT_THAT(summary_paragraph(comparison, table), HasSubstr("2 of 3 pairs at 12 layers"));
}

// A row of seed 2 whose rate was chosen among these on seed 1.
Comparison with_rates(const std::vector<double>& tried, double chosen) {
  Comparison comparison;
  for (const double rate : tried) {
    comparison.cells.push_back(with(cell("prenorm", 12, 1, 2.0), CellRole::kRate, rate));
  }
  comparison.cells.push_back(cell("prenorm", 12, 2, 2.1));
  comparison.cells.back().lr = chosen;
  return comparison;
}

TEST(Worth, ALearningRateAtTheEndOfTheGridIsFlagged) {
  const std::vector<double> tried = {1e-3, 3e-3, 1e-2};
  for (const auto& [chosen, end] : {std::pair(1e-3, -1), std::pair(3e-3, 0), std::pair(1e-2, 1)}) {
    const Comparison comparison = with_rates(tried, chosen);
    const Table table = make_table(comparison);
    ASSERT_EQ(table.rates.size(), 1U);
    EXPECT_EQ(table.rates[0].end_of_grid(), end);
    EXPECT_FALSE(table.rates[0].on_own_seed);
    EXPECT_EQ(table_rates(table).at(0).at("at_end"), end != 0);
    const std::string words = summary_paragraph(comparison, table);
    EXPECT_EQ(words.find("of the grid for") != std::string::npos, end != 0) << words;
    EXPECT_THAT(words, HasSubstr("the losses are of the other seeds"));
    EXPECT_DOUBLE_EQ(*row(table, "prenorm").loss, 2.1);  // not of the seed that chose
  }
}

TEST(Worth, ARateThatIsReportedOnTheSeedThatChoseItSaysSo) {
  Comparison comparison;
  for (const double rate : {1e-3, 3e-3, 1e-2}) {
    comparison.cells.push_back(with(cell("prenorm", 12, 1, 2.0), CellRole::kRate, rate));
  }
  comparison.cells[1].role = CellRole::kScheme;
  const Table table = make_table(comparison);
  EXPECT_TRUE(table.rates.at(0).on_own_seed);
  EXPECT_THAT(summary_paragraph(comparison, table), HasSubstr("reported on the same seed"));
}

TEST(Worth, RowsThatAreNotComparedStandBehindTheOthersAndAreNotPrinted) {
  const Table table = make_table(with_rates({1e-3, 3e-3}, 3e-3));
  EXPECT_EQ(table.compared, 1U);
  ASSERT_EQ(table.rows.size(), 3U);
  EXPECT_EQ(table.rows[1].label, "prenorm, lr 0.001");
  EXPECT_EQ(terminal_table(table).find("lr 0.001"), std::string::npos);
  EXPECT_EQ(table.row_of_cell, (std::vector<std::size_t>{1, 2, 0}));
  EXPECT_EQ(table_rows(table).at(1).at("role"), "rate");
}

TEST(Worth, SpikesOfAllSeedsAreCountedThoseOfDivergedOnesToo) {
  Comparison comparison;
  add_seeds(comparison, "prenorm", 12, 2.0, 0.0);
  for (Cell& c : comparison.cells) c.spikes = 2;
  comparison.cells[1].status = CellStatus::kDiverged;
  const Table table = make_table(comparison);
  EXPECT_EQ(table.rows[0].spikes, 6);
  EXPECT_EQ(table.rows[0].diverged, 1U);
}

TEST(Worth, ALossIsTheMeanOfTheLastEvaluationsOfARun) {
  const TemporaryFolder folder;
  const RunData run = read_run(make_run(folder.path() / "run"));  // 4.25 at step 2, 3.0 at step 4
  Cell one, three;
  take_run(one, run, 1);
  take_run(three, run, 3);
  EXPECT_FALSE(one.loss.has_value());
  EXPECT_EQ(one.val_loss, 3.0);
  EXPECT_DOUBLE_EQ(*three.loss, (4.25 + 3.0) / 2);
  EXPECT_DOUBLE_EQ(*three.loss_bits, (6.1 + 4.3) / 2);
  EXPECT_EQ(three.val_loss, 3.0);
  ASSERT_EQ(three.curve.size(), 2U);
  EXPECT_DOUBLE_EQ(three.curve[1].tokens, 32.0);
  Comparison comparison;
  comparison.last = 3;
  three.label = "wav";
  comparison.cells = {three};
  EXPECT_DOUBLE_EQ(*make_table(comparison).rows[0].loss, 3.625);
  EXPECT_THAT(make_table(comparison).note, HasSubstr("mean of the last 3 evaluations"));
}

// The example of method.md section 12; p-values by scipy 1.17: stats.ttest_rel.
TEST(Worth, TheMethodsExampleIsWhatTheTableSays) {
  Comparison comparison;
  const auto add = [&](const std::string& label, const std::vector<double>& losses) {
    for (std::size_t i = 0; i < losses.size(); ++i) {
      comparison.cells.push_back(cell(label, 12, static_cast<int64_t>(i) + 1, losses[i]));
    }
  };
  add("prenorm", {2.731, 2.725, 2.718});
  add("haares", {2.712, 2.705, 2.699});
  add("wav", {2.711, 2.684, 2.702});
  for (const auto& [budget, loss] : {std::pair(0.5, 2.902), std::pair(2.0, 2.6)}) {
    for (const int64_t seed : {1, 2, 3}) {
      comparison.cells.push_back(with(cell("prenorm", 12, seed, loss), CellRole::kBudget, budget));
    }
  }
  comparison.speed = {{"prenorm", 12, 100.0, {}, {}}, {"haares", 12, 78.0, {}, {}}};
  const Table table = make_table(comparison);
  const TableRow &haares = row(table, "haares"), &wav = row(table, "wav");
  EXPECT_NEAR(haares.difference->mean, -0.019333333333333275, 1e-12);
  EXPECT_NEAR(*haares.difference->half_width, 0.0014342175765833147, 1e-9);
  EXPECT_NEAR(*haares.p_holm, 2 * 0.00029713267629637977, 1e-12);
  EXPECT_NEAR(*wav.difference->half_width, 0.033359049908925784, 1e-9);
  EXPECT_NEAR(*wav.p_holm, 0.08039623299497561, 1e-12);
  EXPECT_NEAR(*wav.noise_floor, 0.02285766686416019, 1e-12);
  EXPECT_TRUE(haares.is_shown());
  EXPECT_FALSE(wav.is_shown());
  // Ratios of budgets are 2: L_inf = (2.902 * 2.6 - 2.72467^2) / (2.902 + 2.6 - 2 * 2.72467).
  EXPECT_NEAR(*haares.equal_loss_compute, 1.0971853803412144, 1e-5);
  EXPECT_NEAR(*haares.effective_speedup, 0.8558045966661473, 1e-5);
}

TEST(Worth, TheNamesThatScriptsReadAreInEveryRow) {
  const auto rows = table_rows(make_table(with_budgets({})));
  for (const char* key :
       {"noise_floor", "p_holm", "tokens_to_target", "seconds_to_target", "equal_loss_compute",
        "effective_speedup", "parameter_share", "spikes", "lr"}) {
    for (const auto& r : rows) EXPECT_TRUE(r.contains(key)) << key;
  }
}

}  // namespace
}  // namespace wavroute
