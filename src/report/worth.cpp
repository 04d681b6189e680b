// What a difference of losses is worth: whether it is one, and what the baseline would pay for it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "report/holm.h"
#include "report/row_losses.h"
#include "report/rows.h"
#include "report/scaling_fit.h"
#include "report/statistics.h"

namespace wavroute {
namespace {

// One depth of a table: its reference and the rows beside it.
struct DepthRows {
  std::size_t begin = 0, end = 0;  // in Table::rows, compared ones
  std::size_t reference = 0;
};

std::vector<DepthRows> depths_of(const Table& table) {
  std::vector<DepthRows> depths;
  for (std::size_t begin = 0; begin < table.compared;) {
    std::size_t end = begin;
    while (end < table.compared && table.rows[end].depth == table.rows[begin].depth) ++end;
    for (std::size_t i = begin; i < end; ++i) {
      if (table.rows[i].is_reference) depths.push_back({begin, end, i});
    }
    begin = end;
  }
  return depths;
}

std::vector<double> values_of(const Losses& losses) {
  std::vector<double> values;
  values.reserve(losses.size());
  for (const auto& [seed, loss] : losses) values.push_back(loss);
  return values;
}

bool is_comparable(const TableRow& row) { return row.is_reference || row.difference.has_value(); }

void adjust_p_values(Table& table) {
  std::vector<double> p_values;
  std::vector<TableRow*> of;
  for (std::size_t i = 0; i < table.compared; ++i) {
    TableRow& row = table.rows[i];
    if (!row.difference || !row.difference->p) continue;
    p_values.push_back(*row.difference->p);
    of.push_back(&row);
  }
  const std::vector<double> adjusted = holm_adjusted(p_values);
  for (std::size_t i = 0; i < of.size(); ++i) of[i]->p_holm = adjusted[i];
  table.comparisons = adjusted.size();
}

// Over the seeds that the row and its reference have both finished; of the mean of their curves.
void fill_target(Table& table, std::size_t at, std::size_t reference,
                 const Comparison& comparison) {
  TableRow& row = table.rows[at];
  const Losses ours = losses_of(comparison, table, at);
  const Losses theirs = losses_of(comparison, table, reference);
  const Curves curves = curves_of(comparison, table, at);
  std::vector<double> losses;
  std::vector<std::vector<CurvePoint>> common;
  for (const auto& [seed, loss] : theirs) {
    if (!ours.contains(seed)) continue;
    losses.push_back(loss);
    common.push_back(curves.at(seed));
  }
  if (losses.empty()) return;
  row.target_loss = comparison.target_loss ? *comparison.target_loss : mean(losses);
  row.tokens_to_target = tokens_to_target(mean_curve(common), *row.target_loss);
  if (row.tokens_to_target && row.tokens_per_s.value_or(0.0) > 0.0) {
    row.seconds_to_target = *row.tokens_to_target / *row.tokens_per_s;
  }
}

// The reference's losses by the multiple of its steps, over the seeds that finished all of them.
struct Budgets {
  std::vector<ScalingPoint> points;
  double own_loss = 0.0;  // of the point at 1
  double largest = 1.0;
};

Budgets budgets_of(const Table& table, std::size_t reference, const Comparison& comparison) {
  const TableRow& own = table.rows[reference];
  std::vector<std::pair<double, Losses>> all = {{1.0, losses_of(comparison, table, reference)}};
  for (std::size_t i = table.compared; i < table.rows.size(); ++i) {
    const TableRow& row = table.rows[i];
    const bool is_budget = row.role == CellRole::kBudget && row.depth == own.depth &&
                           row.cell_label == own.cell_label && row.budget.value_or(0.0) > 0.0;
    Losses losses = is_budget ? losses_of(comparison, table, i) : Losses();
    if (!losses.empty()) all.emplace_back(*row.budget, std::move(losses));
  }
  Losses common = all.front().second;
  for (const auto& entry : all) {
    const Losses& losses = entry.second;
    std::erase_if(common, [&](const auto& seed) { return !losses.contains(seed.first); });
  }
  Budgets result;
  if (common.empty()) return result;
  for (const auto& [budget, losses] : all) {
    std::vector<double> values;
    for (const auto& [seed, ignored] : common) values.push_back(losses.at(seed));
    result.points.push_back({budget, mean(values)});
    result.largest = std::max(result.largest, budget);
  }
  result.own_loss = result.points.front().loss;
  return result;
}

// Compute is counted in the reference's own steps: 1 is what it was trained for.
void fill_equal_loss(Table& table, const DepthRows& depth, const Comparison& comparison) {
  const TableRow& reference = table.rows[depth.reference];
  const Budgets budgets = budgets_of(table, depth.reference, comparison);
  const ScalingResult scaling = fit_scaling(budgets.points);
  for (std::size_t i = depth.begin; i < depth.end; ++i) {
    TableRow& row = table.rows[i];
    if (!row.difference) continue;
    if (!scaling.fit) {
      row.equal_loss_why =
          budgets.points.size() < kFewestBudgets
              ? fmt::format("finished runs of {} with {} budgets or more are needed, given {}",
                            reference.label, kFewestBudgets, budgets.points.size())
              : scaling.why;
      continue;
    }
    row.equal_loss_compute = scaling.fit->compute_for(budgets.own_loss + row.difference->mean);
    if (!row.equal_loss_compute) {
      row.equal_loss_why =
          fmt::format("the loss lies below {:.4f}, the limit of the fit", scaling.fit->limit);
      continue;
    }
    row.is_extrapolated = *row.equal_loss_compute > budgets.largest;
    if (row.speed_ratio) row.effective_speedup = *row.equal_loss_compute * *row.speed_ratio;
  }
}

void fill_shares(Table& table, const DepthRows& depth) {
  const double reference = table.rows[depth.reference].parameters.value_or(0.0);
  if (reference <= 0.0) return;
  for (std::size_t i = depth.begin; i < depth.end; ++i) {
    TableRow& row = table.rows[i];
    if (row.parameters) row.parameter_share = *row.parameters / reference - 1.0;
  }
}

void fill_rates(Table& table) {
  for (const TableRow& row : table.compared_rows()) {
    if (!row.lr) continue;
    std::set<double> tried;
    bool was_tried_apart = false;
    for (const TableRow& other : table.rows) {
      const bool is_try = other.role == CellRole::kRate && other.lr &&
                          other.cell_label == row.cell_label && other.depth == row.depth;
      if (!is_try) continue;
      tried.insert(*other.lr);
      was_tried_apart = was_tried_apart || *other.lr == *row.lr;
    }
    if (tried.empty()) continue;
    tried.insert(*row.lr);
    table.rates.push_back(
        {row.label, row.depth, *row.lr, {tried.begin(), tried.end()}, !was_tried_apart});
  }
}

void fill_decisions(Table& table) {
  const std::vector<DepthRows> depths = depths_of(table);
  if (depths.size() < 2 || !table.rows[depths.back().begin].depth) return;
  const DepthRows& deepest = depths.back();
  for (const DepthRows& depth : depths) {
    if (depth.begin == deepest.begin || !table.rows[depth.begin].depth) continue;
    std::vector<double> here, there;
    for (std::size_t i = depth.begin; i < depth.end; ++i) {
      const TableRow& row = table.rows[i];
      for (std::size_t j = deepest.begin; j < deepest.end; ++j) {
        const TableRow& other = table.rows[j];
        const bool is_pair = other.cell_label == row.cell_label && row.loss && other.loss &&
                             is_comparable(row) && is_comparable(other);
        if (!is_pair) continue;
        here.push_back(*row.loss);
        there.push_back(*other.loss);
      }
    }
    const DecisionAccuracy accuracy = decision_accuracy(here, there);
    if (accuracy.pairs == 0) continue;
    table.decisions.push_back(
        {*table.rows[depth.begin].depth, *table.rows[deepest.begin].depth, accuracy});
  }
}

}  // namespace

int RateChoice::end_of_grid() const {
  if (tried.size() < 2) return 0;
  return lr == tried.front() ? -1 : lr == tried.back() ? 1 : 0;
}

Losses losses_of(const Comparison& comparison, const Table& table, std::size_t row) {
  Losses losses;
  for (const std::size_t i : samples_of(comparison.cells, table, row)) {
    const Cell& cell = comparison.cells[i];
    if (cell.status != CellStatus::kFinished || !cell.val_loss) continue;
    const double loss = cell.loss.value_or(*cell.val_loss);
    if (std::isfinite(loss)) losses[seed_key(cell, i)] = loss;
  }
  return losses;
}

Curves curves_of(const Comparison& comparison, const Table& table, std::size_t row) {
  Curves curves;
  const Losses losses = losses_of(comparison, table, row);
  for (const std::size_t i : samples_of(comparison.cells, table, row)) {
    const int64_t seed = seed_key(comparison.cells[i], i);
    if (losses.contains(seed)) curves[seed] = comparison.cells[i].curve;
  }
  return curves;
}

void fill_worth(Table& table, const Comparison& comparison) {
  adjust_p_values(table);
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    for (const std::size_t cell : samples_of(comparison.cells, table, i)) {
      table.rows[i].spikes += comparison.cells[cell].spikes.value_or(0);
    }
  }
  for (const DepthRows& depth : depths_of(table)) {
    const auto noise = noise_floor(values_of(losses_of(comparison, table, depth.reference)));
    fill_shares(table, depth);
    for (std::size_t i = depth.begin; i < depth.end; ++i) {
      table.rows[i].noise_floor = noise;
      if (is_comparable(table.rows[i])) fill_target(table, i, depth.reference, comparison);
    }
    fill_equal_loss(table, depth, comparison);
  }
  fill_rates(table);
  fill_decisions(table);
}

}  // namespace wavroute
