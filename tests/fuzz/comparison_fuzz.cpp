// compare.json: what was compared.
#include <nlohmann/json.hpp>

#include "fuzz.h"
#include "io/json_text.h"
#include "report/comparison.h"
#include "report/table.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  fuzz::accepts([&] {
    const Comparison comparison =
        parse_comparison(parse_json(text, "compare.json"), "compare.json");
    const Table table = make_table(comparison);
    fuzz::require(table.row_of_cell.size() == comparison.cells.size(), "a cell has a row");
    for (const size_t row : table.row_of_cell) {
      fuzz::require(row < table.rows.size(), "the row of a cell is in the table");
    }
    (void)terminal_table(table);
    (void)markdown_table(table);
    const std::string written = comparison_document(comparison).dump();
    fuzz::require(
        fuzz::accepts([&] { (void)parse_comparison(parse_json(written, "written"), "written"); }),
        "a comparison that was written can be read");
  });
}
