#include "compare/rates.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace wavroute {
namespace {

// What one row has at one depth.
struct RowCells {
  std::vector<size_t> tried;
  bool has_others = false;
};

}  // namespace

bool has_ended(const Cell& cell) {
  return cell.status == CellStatus::kFinished || cell.status == CellStatus::kDiverged ||
         cell.status == CellStatus::kFailed;
}

std::optional<size_t> best_rate(std::span<const Cell> cells, std::span<const size_t> tried) {
  std::optional<size_t> best;
  double least = 0.0;
  for (const size_t i : tried) {
    const Cell& cell = cells[i];
    if (cell.status != CellStatus::kFinished || !cell.val_loss) continue;
    const double loss = cell.loss.value_or(*cell.val_loss);
    if (best && !(loss < least)) continue;
    best = i;
    least = loss;
  }
  return best;
}

void promote_rates(std::vector<Cell>& cells) {
  std::map<std::pair<std::string, std::optional<int64_t>>, RowCells> rows;
  for (size_t i = 0; i < cells.size(); ++i) {
    RowCells& row = rows[{cells[i].label, cells[i].depth}];
    if (cells[i].role == CellRole::kRate) row.tried.push_back(i);
    row.has_others = row.has_others || cells[i].role == CellRole::kScheme;
  }
  for (const auto& [key, row] : rows) {
    const bool all_ended =
        std::ranges::all_of(row.tried, [&](size_t i) { return has_ended(cells[i]); });
    if (row.has_others || row.tried.empty() || !all_ended) continue;
    cells[best_rate(cells, row.tried).value_or(row.tried.front())].role = CellRole::kScheme;
  }
}

}  // namespace wavroute
