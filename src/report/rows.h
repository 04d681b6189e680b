// Groups cells into rows: cells of one configuration are samples of it.
#pragma once

#include "report/table.h"

namespace wavroute {

// The rows and row_of_cell of a table: by depth, with labels, keys that differ, counts and sizes,
// without losses and speeds.
void group_cells(const std::vector<Cell>& cells, Table& table);

// The cell that represents each seed of a row: a finished one if there is one. Indices into
// `cells`.
[[nodiscard]] std::vector<std::size_t> samples_of(const std::vector<Cell>& cells,
                                                  const Table& table, std::size_t row);

}  // namespace wavroute
