#include "report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <utility>

#include "report/row_losses.h"
#include "report/rows.h"

namespace wavroute {
namespace {

std::optional<double> mean_of(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  const double result = mean(values);
  return std::isfinite(result) ? std::optional(result) : std::nullopt;
}

void fill_losses(Table& table, std::size_t row, const Comparison& comparison,
                 const Losses& losses) {
  std::vector<double> nats, bits;
  for (const auto& [seed, loss] : losses) nats.push_back(loss);
  for (const std::size_t i : samples_of(comparison.cells, table, row)) {
    const Cell& cell = comparison.cells[i];
    if (!losses.contains(seed_key(cell, i))) continue;
    if (const auto value = cell.loss_bits ? cell.loss_bits : cell.bits_per_byte) {
      bits.push_back(*value);
    }
  }
  table.rows[row].loss = mean_of(nats);
  table.rows[row].bits_per_byte = mean_of(bits);
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
  const PairedDifference difference = paired_difference(ours, theirs);
  return std::isfinite(difference.mean) ? std::optional(difference) : std::nullopt;
}

// Runs that were trained on their own and for another time, or at another width, are no pairs of
// schemes; a grid that plans to vary these says so in its labels.
std::string why_no_pair(const TableRow& row, const TableRow& reference) {
  constexpr std::array<std::pair<const char*, const char*>, 3> kKeys = {
      {{"train.steps", "another number of steps"},
       {"train.batch", "another batch size"},
       {"model.width", "another width"}}};
  for (const auto& [key, words] : kKeys) {
    const auto ours = row.settings.find(key), theirs = reference.settings.find(key);
    const bool known = ours != row.settings.end() && theirs != reference.settings.end();
    if (known && ours->second != theirs->second) return words;
  }
  return {};
}

void compare_with(TableRow& row, const Losses& losses, const TableRow& reference,
                  const Losses& reference_losses, bool is_grid) {
  if (losses.empty()) return;  // nothing to compare; the row says how it ended
  row.not_compared = why_no_difference(row.measure, reference.measure);
  const bool is_by_plan = is_grid && row.is_planned && reference.is_planned;
  if (row.not_compared.empty() && !is_by_plan) row.not_compared = why_no_pair(row, reference);
  if (!row.not_compared.empty()) {
    row.bits_compare = row.bits_per_byte && reference.bits_per_byte &&
                       same_bytes_scored(row.measure, reference.measure);
    return;
  }
  row.difference = difference_of(losses, reference_losses);
  if (row.difference) return;
  row.not_compared = reference_losses.empty() ? "the reference has no loss" : "no common seed";
}

// For a grid: measured in turn. Else the mean over the row's runs, if one machine made them all.
void fill_speed(Table& table, std::size_t at, const Comparison& comparison) {
  TableRow& row = table.rows[at];
  if (comparison.is_grid) {
    for (const Speed& speed : comparison.speed) {
      if (speed.label != row.cell_label || speed.depth != row.depth) continue;
      row.tokens_per_s = speed.tokens_per_s;
      row.peak_rss_bytes = speed.peak_rss_bytes;
    }
    return;
  }
  std::vector<double> speeds, peaks;
  bool one_machine = true, is_first = true;
  for (std::size_t i = 0; i < comparison.cells.size(); ++i) {
    const Cell& cell = comparison.cells[i];
    if (table.row_of_cell[i] != at) continue;
    one_machine = one_machine && (is_first || cell.machine == row.machine);
    row.machine = cell.machine;
    is_first = false;
    if (cell.tokens_per_s) speeds.push_back(*cell.tokens_per_s);
    if (cell.peak_rss_bytes) peaks.push_back(*cell.peak_rss_bytes);
  }
  if (one_machine) row.tokens_per_s = mean_of(speeds);
  row.peak_rss_bytes = mean_of(peaks);
}

// The reference of a depth: the row with the label of the first cell, or one whose label was
// extended from it.
const TableRow* reference_of(const Table& table, const std::optional<int64_t>& depth,
                             const std::string& cell_label) {
  const TableRow* found = nullptr;
  for (const TableRow& row : table.compared_rows()) {
    if (row.depth != depth) continue;
    if (row.label == table.reference) return &row;
    if (!found && row.cell_label == cell_label) found = &row;
  }
  return found;
}

// ", wav and act" rows for which `member` holds, by their labels.
std::string labels_where(const Table& table, const std::function<bool(const TableRow&)>& member) {
  constexpr std::size_t kMost = 4;
  std::vector<std::string> labels;
  for (const TableRow& row : table.compared_rows()) {
    if (member(row) && std::ranges::find(labels, row.label) == labels.end()) {
      labels.push_back(row.label);
    }
  }
  std::string text;
  for (std::size_t i = 0; i < std::min(labels.size(), kMost); ++i) {
    text += fmt::format("{}{}", text.empty() ? "" : ", ", labels[i]);
  }
  return labels.size() > kMost ? text + ", ..." : text;
}

std::string difference_note(const Table& table) {
  std::size_t pairs = 0;  // the most in any row
  for (const TableRow& row : table.rows) {
    if (row.difference) pairs = std::max(pairs, row.difference->n);
  }
  std::string note;
  if (pairs >= 2) {
    note = fmt::format(
        " Difference: to {}, seed by seed, with the 95 % interval of Student's t over n seeds; a "
        "single seed (n=1) has no interval. p: of the paired t-test, adjusted by Holm for the {} "
        "comparison{} of the table.",
        table.reference, table.comparisons, table.comparisons == 1 ? "" : "s");
  } else if (pairs == 1) {
    note = fmt::format(
        " Difference: to {}. One seed (n=1) has no interval and can't tell a difference from "
        "chance; a 95 % interval (Student's t over seeds) needs two or more.",
        table.reference);
  }
  std::map<std::string, std::pair<bool, bool>> reasons;  // -> bits per byte can be compared, can't
  for (const TableRow& row : table.rows) {
    if (row.not_compared.empty()) continue;
    (row.bits_compare ? reasons[row.not_compared].first : reasons[row.not_compared].second) = true;
  }
  for (const auto& [reason, fair] : reasons) {
    for (const bool by_bits : {true, false}) {
      if (by_bits ? !fair.first : !fair.second) continue;
      const auto labels =
          labels_where(table, [&reason = reason, &by_bits = by_bits](const TableRow& row) {
            return row.not_compared == reason && row.bits_compare == by_bits;
          });
      note +=
          fmt::format(" No difference to {} for {}: {}{}.", table.reference, labels, reason,
                      by_bits ? "; bits per byte are of the same text and can be compared" : "");
    }
  }
  return note;
}

// The columns of what a difference is worth.
std::string worth_note(const Table& table) {
  const auto any = [&](const std::function<bool(const TableRow&)>& holds) {
    return std::ranges::any_of(table.compared_rows(), holds);
  };
  std::string note;
  if (any([](const TableRow& r) { return !r.is_reference && r.tokens_to_target; })) {
    note += fmt::format(
        " To target: tokens, and at the measured speed the time, until the validation loss is "
        "first "
        "as low as {}.",
        any([](const TableRow& r) { return r.is_reference && r.target_loss != r.loss; })
            ? fmt::format("{:.4f}", table.rows.front().target_loss.value_or(0.0))
            : table.reference + "'s at the end");
  }
  if (any([](const TableRow& r) { return r.equal_loss_compute.has_value(); })) {
    note += fmt::format(
        " Equal loss: the compute, in multiples of its own, that {} would need for the row's loss; "
        "*: beyond its largest budget, extrapolated. Speed-up: that times the ratio of speeds.",
        table.reference);
  }
  for (const TableRow& row : table.compared_rows()) {
    if (row.equal_loss_why.empty() || table.compared == table.rows.size()) continue;
    note += fmt::format(" No equal-loss compute for {}: {}.", row.label, row.equal_loss_why);
  }
  if (any([](const TableRow& r) { return !r.wider_for.empty(); })) {
    note +=
        fmt::format(" {}: with a wider MLP, for as many parameters as another row has.",
                    labels_where(table, [](const TableRow& r) { return !r.wider_for.empty(); }));
  }
  return note;
}

std::string note_of(const Table& table, const Comparison& comparison) {
  const auto any = [&](const std::function<bool(const TableRow&)>& holds) {
    return std::ranges::any_of(table.rows, holds);
  };
  std::string note;
  if (any([](const TableRow& r) { return r.loss.has_value(); })) {
    note = comparison.last > 1
               ? fmt::format(
                     "Loss: validation cross-entropy, nats per token: the mean of the last {} "
                     "evaluations of a run, then over the seeds.",
                     comparison.last)
               : "Loss: validation cross-entropy, nats per token, mean over the seeds.";
  }
  note += difference_note(table);
  if (any([](const TableRow& r) { return r.pending + r.running + r.stopped > 0; })) {
    note += " Runs that have not finished are left out of means.";
  }
  if (any([](const TableRow& r) { return r.duplicates > 0; })) {
    note += fmt::format(" Several runs of one configuration and seed count once: {}.",
                        labels_where(table, [](const TableRow& r) { return r.duplicates > 0; }));
  }
  note += worth_note(table);
  if (any([](const TableRow& r) { return r.tokens_per_s.has_value(); })) {
    note += comparison.is_grid ? " Speed and memory: training steps, measured in turn."
                               : " Speed and memory: from each training run, not measured in turn.";
  }
  return note.substr(std::min(note.find_first_not_of(' '), note.size()));
}

}  // namespace

Table make_table(const Comparison& comparison) {
  Table table;
  group_cells(comparison.cells, table);
  if (comparison.cells.empty()) return table;
  const std::string& first = comparison.cells.front().label;
  const auto first_compared = std::ranges::find_if(comparison.cells, [&](const Cell& cell) {
    return cell.role == CellRole::kScheme && cell.label == first;
  });
  table.reference = first;
  if (first_compared != comparison.cells.end()) {
    const auto i = static_cast<std::size_t>(first_compared - comparison.cells.begin());
    table.reference = table.rows[table.row_of_cell[i]].label;
  }
  const TableRow* reference = nullptr;  // of the current depth
  Losses reference_losses;
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    fill_losses(table, i, comparison, losses_of(comparison, table, i));
    fill_speed(table, i, comparison);
  }
  for (std::size_t i = 0; i < table.compared; ++i) {
    TableRow& row = table.rows[i];
    if (i == 0 || row.depth != table.rows[i - 1].depth) {
      reference = reference_of(table, row.depth, first);
      reference_losses = reference
                             ? losses_of(comparison, table,
                                         static_cast<std::size_t>(reference - table.rows.data()))
                             : Losses();
    }
    row.is_reference = &row == reference;
    if (!reference) continue;
    if (!row.is_reference) {
      compare_with(row, losses_of(comparison, table, i), *reference, reference_losses,
                   comparison.is_grid);
    }
    const bool same_machine = comparison.is_grid || row.machine == reference->machine;
    if (same_machine && row.tokens_per_s && reference->tokens_per_s.value_or(0.0) > 0.0) {
      row.speed_ratio = *row.tokens_per_s / *reference->tokens_per_s;
    }
  }
  fill_worth(table, comparison);
  table.note = note_of(table, comparison);
  return table;
}

}  // namespace wavroute
