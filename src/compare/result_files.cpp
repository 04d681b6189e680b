#include "compare/result_files.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "report/row_files.h"
#include "report/summary_words.h"
#include "report/table.h"

namespace wavroute {

void write_results(const Comparison& comparison, const std::filesystem::path& out, bool is_end,
                   const std::function<void(const std::string&)>& say) {
  const Table table = make_table(comparison);
  nlohmann::ordered_json document = comparison_document(comparison);
  document["rows"] = table_rows(table);
  document["decision_accuracy"] = table_decisions(table);
  document["learning_rates"] = table_rates(table);
  document["summary"] = summary_paragraph(comparison, table);
  constexpr auto kMendText = nlohmann::ordered_json::error_handler_t::replace;
  write_file_atomic(out / "compare.json", document.dump(2, ' ', false, kMendText) + "\n");
  if (!is_end) return;
  try {
    write_file_atomic(out / kRowsCsv, rows_csv(table));
    write_rows_sqlite(out / kRowsSqlite, comparison, table);
  } catch (const std::exception& error) {
    say(fmt::format("no {} or {}: {}", kRowsCsv, kRowsSqlite, error.what()));
  }
}

}  // namespace wavroute
