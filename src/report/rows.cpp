#include "report/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "base/utf8.h"

namespace wavroute {
namespace {

constexpr std::size_t kShownKeys = 4;
constexpr std::size_t kShownValue = 40;  // bytes

bool same_thing(const TableRow& row, const Cell& cell) {
  if (row.cell_label != cell.label || row.depth != cell.depth) return false;
  if (row.role != cell.role || row.budget != cell.budget) return false;
  if (row.role == CellRole::kRate && row.lr != cell.lr) return false;
  const bool by_settings = !row.settings.empty() && !cell.settings.empty();
  if (by_settings && row.settings != cell.settings) return false;
  // Settings don't say how large a vocabulary a text has, nor how much of it was scored. Runs of
  // before they kept that count as equal in it.
  if (by_settings && !(row.measure.tokens && cell.measure.tokens)) return true;
  // Of a cell that has not begun, or whose folder is gone, the label alone says what it is.
  const bool measured = row.measure != Measure{} && cell.measure != Measure{};
  return !measured || why_no_difference(row.measure, cell.measure).empty();
}

void count_status(TableRow& row, CellStatus status) {
  ++row.seeds;
  if (status == CellStatus::kFinished) ++row.finished;
  if (status == CellStatus::kDiverged) ++row.diverged;
  if (status == CellStatus::kFailed) ++row.failed;
  if (status == CellStatus::kPending) ++row.pending;
  if (status == CellStatus::kRunning) ++row.running;
  if (status == CellStatus::kStopped) ++row.stopped;
}

void take_cell(TableRow& row, const Cell& cell) {
  if (row.settings.empty()) row.settings = cell.settings;
  // An unfinished run may not know yet how many tokens it scores.
  if (row.measure == Measure{} || (!row.measure.tokens && cell.measure.tokens)) {
    row.measure = cell.measure;
  }
  row.is_planned = row.is_planned && cell.unplanned.empty();
  if (!row.lr) row.lr = cell.lr;
  if (row.wider_for.empty()) row.wider_for = cell.wider_for;
  if (!row.parameters) row.parameters = cell.parameters;
  if (!row.flops_per_token) row.flops_per_token = cell.flops_per_token;
}

std::string value_in(const TableRow& row, const std::string& key) {
  const auto found = row.settings.find(key);
  return found == row.settings.end() ? std::string() : found->second;
}

// Whether `key` tells any two of `rows` apart. An option that a row doesn't have belongs to
// another's scheme, but not among rows of one scheme; what `details` is differs from scheme to
// scheme.
bool tells_apart(const std::string& key, const std::vector<const TableRow*>& rows) {
  const bool is_option = key.starts_with("residual.") && key != "residual.scheme";
  std::set<std::string> values;  // of all rows that are compared
  std::map<std::string, std::set<std::string>> of_scheme;
  for (const TableRow* row : rows) {
    if (row->settings.empty()) continue;
    const std::string value = value_in(*row, key);
    if (is_option && of_scheme[row->scheme].insert(value).second &&
        of_scheme[row->scheme].size() > 1) {
      return true;
    }
    if (is_option && (value.empty() || key == "residual.details")) continue;
    values.insert(value);
    if (values.size() > 1) return true;
  }
  return false;
}

// The keys in which any two of `rows` differ, in alphabetical order.
std::vector<std::string> differing_keys(const std::vector<const TableRow*>& rows) {
  std::set<std::string> keys;
  for (const TableRow* row : rows) {
    for (const auto& [key, value] : row->settings) keys.insert(key);
  }
  std::vector<std::string> result;
  std::ranges::copy_if(keys, std::back_inserter(result),
                       [&](const std::string& key) { return tells_apart(key, rows); });
  return result;
}

std::vector<RowKey> keys_of(const TableRow& row, const std::vector<std::string>& keys) {
  std::vector<RowKey> result;
  for (const std::string& key : keys) {
    const auto found = row.settings.find(key);
    if (found != row.settings.end()) result.push_back({key, found->second});
  }
  return result;
}

std::string folder_of(const std::vector<Cell>& cells, const Table& table, std::size_t row) {
  const auto at = std::ranges::find(table.row_of_cell, row) - table.row_of_cell.begin();
  return cells[static_cast<std::size_t>(at)].run.string();
}

// Rows of one depth that would have one label get what tells them apart behind it.
void separate_labels(const std::vector<Cell>& cells, Table& table,
                     const std::vector<std::size_t>& rows,
                     std::map<std::size_t, std::vector<std::string>>& said) {
  std::map<std::string, std::vector<std::size_t>> same;
  for (const std::size_t i : rows) same[table.rows[i].cell_label].push_back(i);
  std::set<std::string> taken;
  for (const auto& [label, group] : same) {
    std::vector<const TableRow*> members;
    for (const std::size_t i : group) members.push_back(&table.rows[i]);
    const auto keys = group.size() > 1 ? differing_keys(members) : std::vector<std::string>();
    for (const std::size_t i : group) {
      TableRow& row = table.rows[i];
      const std::string words = keys_text(keys_of(row, keys));
      row.label = words.empty() ? label : fmt::format("{} ({})", label, words);
      if (keys.size() <= kShownKeys) said[i] = keys;
      if (taken.contains(row.label)) {
        row.label += fmt::format(" ({})", folder_of(cells, table, i));
      }
      for (int n = 2; taken.contains(row.label); ++n) row.label += fmt::format(" #{}", n);
      taken.insert(row.label);
    }
  }
}

// What the rows of one depth differ in, besides what their labels show.
void name_differences(const std::vector<Cell>& cells, Table& table,
                      const std::vector<std::size_t>& rows) {
  std::map<std::size_t, std::vector<std::string>> said;
  separate_labels(cells, table, rows, said);
  // A wider baseline is what its label says; learning rates that were tried have a column.
  const bool has_rates =
      std::ranges::any_of(cells, [](const Cell& cell) { return cell.role == CellRole::kRate; });
  std::vector<const TableRow*> members;
  for (const std::size_t i : rows) {
    if (table.rows[i].wider_for.empty()) members.push_back(&table.rows[i]);
  }
  const auto keys = differing_keys(members);
  for (const std::size_t i : rows) {
    TableRow& row = table.rows[i];
    if (!row.wider_for.empty()) continue;
    for (RowKey& entry : keys_of(row, keys)) {
      const bool in_label = std::ranges::count(said[i], entry.key) > 0 ||
                            (has_rates && entry.key == "optimizer.lr") ||
                            shown_value(entry.value) == row.cell_label ||
                            entry.key == "model.layers";
      if (!in_label) row.differs.push_back(std::move(entry));
    }
  }
}

// The label of a row that is in no comparison.
std::string tried_label(const TableRow& row) {
  if (row.role == CellRole::kBudget) {
    return fmt::format("{}, {} x steps", row.cell_label, row.budget.value_or(0.0));
  }
  return fmt::format("{}, lr {}", row.cell_label, row.lr.value_or(0.0));
}

// Which of two cells with the same seed represents it.
bool says_more(CellStatus a, CellStatus b) {
  return a == CellStatus::kFinished && b != CellStatus::kFinished;
}

}  // namespace

std::vector<std::size_t> samples_of(const std::vector<Cell>& cells, const Table& table,
                                    std::size_t row) {
  std::vector<std::size_t> samples;
  std::map<int64_t, std::size_t> of_seed;  // -> place in samples
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (table.row_of_cell[i] != row) continue;
    if (!cells[i].seed) {  // counts on its own
      samples.push_back(i);
      continue;
    }
    const auto [known, is_new] = of_seed.try_emplace(*cells[i].seed, samples.size());
    if (is_new) {
      samples.push_back(i);
    } else if (says_more(cells[i].status, cells[samples[known->second]].status)) {
      samples[known->second] = i;
    }
  }
  return samples;
}

void group_cells(const std::vector<Cell>& cells, Table& table) {
  std::vector<TableRow> rows;
  std::vector<std::size_t> row_of;
  for (const Cell& cell : cells) {
    auto row = std::ranges::find_if(rows, [&](const TableRow& r) { return same_thing(r, cell); });
    if (row == rows.end()) {
      rows.emplace_back();
      row = std::prev(rows.end());
      row->label = row->cell_label = cell.label;
      row->scheme = cell.scheme;
      row->depth = cell.depth;
      row->role = cell.role;
      row->budget = cell.budget;
    }
    take_cell(*row, cell);
    row_of.push_back(static_cast<std::size_t>(row - rows.begin()));
  }
  std::vector<std::size_t> order(rows.size()), place(rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) {
    return std::pair(rows[i].role != CellRole::kScheme, rows[i].depth);
  });
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[order[i]] = i;
    table.rows.push_back(std::move(rows[order[i]]));
  }
  for (const std::size_t row : row_of) table.row_of_cell.push_back(place[row]);
  const auto tried = std::ranges::find_if(
      table.rows, [](const TableRow& row) { return row.role != CellRole::kScheme; });
  table.compared = static_cast<std::size_t>(tried - table.rows.begin());
  for (auto row = tried; row != table.rows.end(); ++row) row->label = tried_label(*row);

  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    const auto samples = samples_of(cells, table, i);
    for (const std::size_t cell : samples) count_status(table.rows[i], cells[cell].status);
    table.rows[i].duplicates =
        static_cast<std::size_t>(std::ranges::count(table.row_of_cell, i)) - samples.size();
  }
  for (std::size_t begin = 0; begin < table.compared;) {
    std::vector<std::size_t> same_depth;
    std::size_t end = begin;
    for (; end < table.compared && table.rows[end].depth == table.rows[begin].depth; ++end) {
      same_depth.push_back(end);
    }
    name_differences(cells, table, same_depth);
    begin = end;
  }
}

std::string keys_text(const std::vector<RowKey>& keys) {
  std::string text;
  for (std::size_t i = 0; i < std::min(keys.size(), kShownKeys); ++i) {
    std::string value = shown_value(keys[i].value);
    if (value.size() > kShownValue)
      value = value.substr(0, utf8_boundary(value, kShownValue)) + "...";
    text += fmt::format("{}{}={}", text.empty() ? "" : ", ", keys[i].key, value);
  }
  if (keys.size() > kShownKeys) text += fmt::format(" and {} more", keys.size() - kShownKeys);
  return text;
}

}  // namespace wavroute
