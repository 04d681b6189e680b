// A table's rows for other programs: CSV and SQLite.
#pragma once

#include <filesystem>
#include <string>

#include "report/table.h"

namespace wavroute {

// One line for each row, under a line of names: those of compare.json's rows, members of members
// joined by '_' ("difference_mean"). What is null there is empty here (RFC 4180).
[[nodiscard]] std::string rows_csv(const Table& table);

// One file with a table `rows` (the columns of rows_csv) and a table `cells` (compare.json's cells,
// likewise). Appears by rename. A Failure where the program was built without libsqlite3.
void write_rows_sqlite(const std::filesystem::path& file, const Comparison& comparison,
                       const Table& table);

}  // namespace wavroute
