#include "report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

namespace wavroute {
namespace {

using Losses = std::map<int64_t, double>;  // by seed

// A cell without a seed counts as one of its own: seeds are not negative, these keys are.
int64_t seed_key(const Cell& cell, std::size_t index) {
  return cell.seed.value_or(-1 - static_cast<int64_t>(index));
}

bool same_row(const TableRow& row, const std::string& label, const std::optional<int64_t>& depth) {
  return row.label == label && row.depth == depth;
}

void count_status(TableRow& row, CellStatus status) {
  ++row.seeds;
  if (status == CellStatus::kFinished) ++row.finished;
  if (status == CellStatus::kDiverged) ++row.diverged;
  if (status == CellStatus::kFailed) ++row.failed;
  if (status == CellStatus::kPending) ++row.pending;
}

// Rows in the order of the cells, sorted by depth, each with its counts and sizes.
std::vector<TableRow> rows_of(const std::vector<Cell>& cells) {
  std::vector<TableRow> rows;
  for (const Cell& cell : cells) {
    auto row = std::ranges::find_if(
        rows, [&](const TableRow& r) { return same_row(r, cell.label, cell.depth); });
    if (row == rows.end()) {
      rows.emplace_back();
      row = std::prev(rows.end());
      row->label = cell.label;
      row->scheme = cell.scheme;
      row->depth = cell.depth;
    }
    count_status(*row, cell.status);
    if (!row->parameters) row->parameters = cell.parameters;
    if (!row->flops_per_token) row->flops_per_token = cell.flops_per_token;
  }
  std::ranges::stable_sort(rows, {}, &TableRow::depth);
  return rows;
}

Losses losses_of(const Comparison& comparison, const TableRow& row) {
  Losses losses;
  for (std::size_t i = 0; i < comparison.cells.size(); ++i) {
    const Cell& cell = comparison.cells[i];
    if (!same_row(row, cell.label, cell.depth) || cell.status != CellStatus::kFinished) continue;
    if (cell.val_loss) losses[seed_key(cell, i)] = *cell.val_loss;
  }
  return losses;
}

std::optional<double> mean_of(const std::vector<double>& values) {
  return values.empty() ? std::nullopt : std::optional(mean(values));
}

void fill_losses(TableRow& row, const Comparison& comparison, const Losses& losses) {
  std::vector<double> nats, bits;
  for (const auto& [seed, loss] : losses) nats.push_back(loss);
  for (const Cell& cell : comparison.cells) {
    if (!same_row(row, cell.label, cell.depth) || cell.status != CellStatus::kFinished) continue;
    if (cell.bits_per_byte) bits.push_back(*cell.bits_per_byte);
  }
  row.loss = mean_of(nats);
  row.bits_per_byte = mean_of(bits);
}

// Over the seeds that both have finished.
std::optional<PairedDifference> difference_of(const Losses& losses, const Losses& reference) {
  std::vector<double> ours, theirs;
  for (const auto& [seed, loss] : losses) {
    const auto match = reference.find(seed);
    if (match == reference.end()) continue;
    ours.push_back(loss);
    theirs.push_back(match->second);
  }
  if (ours.empty()) return std::nullopt;
  return paired_difference(ours, theirs);
}

void fill_speed(TableRow& row, const Comparison& comparison) {
  for (const Speed& speed : comparison.speed) {
    if (!same_row(row, speed.label, speed.depth)) continue;
    row.tokens_per_s = speed.tokens_per_s;
    row.peak_rss_bytes = speed.peak_rss_bytes;
  }
}

std::string note_of(const Table& table, const Comparison& comparison) {
  std::string note;
  if (std::ranges::any_of(table.rows, [](const TableRow& r) { return r.loss.has_value(); })) {
    note = "Loss: validation cross-entropy, nats per token, mean over the seeds.";
  }
  const std::size_t pairs = [&] {  // the most in any row
    std::size_t n = 0;
    for (const TableRow& row : table.rows) {
      if (row.difference) n = std::max(n, row.difference->n);
    }
    return n;
  }();
  if (!comparison.unequal.empty()) {
    note += fmt::format(" No differences: the runs differ in their {}.", comparison.unequal);
  } else if (pairs >= 2) {
    note += fmt::format(
        " Difference: to {}, seed by seed, with the 95 % interval of Student's t over n seeds; one "
        "seed alone (n=1) has no interval.",
        table.reference);
  } else if (pairs == 1) {
    note += fmt::format(
        " Difference: to {}. One seed (n=1) has no interval, and no difference of one seed is told "
        "from chance; a 95 % interval (Student's t over seeds) takes two or more.",
        table.reference);
  }
  const bool has_speed =
      std::ranges::any_of(table.rows, [](const TableRow& r) { return r.tokens_per_s.has_value(); });
  if (has_speed) {
    note += comparison.speed_is_interleaved
                ? " Speed and memory: training steps, measured in turns."
                : " Speed and memory: as each training run went, not measured in turns.";
  }
  return note.substr(std::min(note.find_first_not_of(' '), note.size()));
}

}  // namespace

Table make_table(const Comparison& comparison) {
  Table table;
  table.rows = rows_of(comparison.cells);
  if (!comparison.cells.empty()) table.reference = comparison.cells.front().label;
  const TableRow* reference = nullptr;  // of the current depth
  Losses reference_losses;
  std::optional<int64_t> depth;
  for (TableRow& row : table.rows) {
    if (!reference || depth != row.depth) {
      depth = row.depth;
      const auto found = std::ranges::find_if(
          table.rows, [&](const TableRow& r) { return same_row(r, table.reference, depth); });
      reference = found == table.rows.end() ? nullptr : &*found;
      reference_losses = reference ? losses_of(comparison, *reference) : Losses();
      if (found != table.rows.end()) fill_speed(*found, comparison);
    }
    const Losses losses = losses_of(comparison, row);
    row.is_reference = &row == reference;
    fill_losses(row, comparison, losses);
    fill_speed(row, comparison);
    if (reference && !row.is_reference && comparison.unequal.empty()) {
      row.difference = difference_of(losses, reference_losses);
    }
    if (reference && row.tokens_per_s && reference->tokens_per_s.value_or(0.0) > 0.0) {
      row.speed_ratio = *row.tokens_per_s / *reference->tokens_per_s;
    }
  }
  table.note = note_of(table, comparison);
  return table;
}

}  // namespace wavroute
