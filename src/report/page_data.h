// What the page shows, section by section, and the data that its script draws.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "report/comparison.h"
#include "report/run_data.h"
#include "report/table.h"

namespace wavroute {

// One compare folder, or all the runs that were given on their own.
struct ReportSection {
  std::string name;              // of the comparison, or empty
  std::filesystem::path folder;  // of the comparison, or empty
  Comparison comparison;
  Table table;
  std::vector<RunData> runs;            // those that have a folder, in the order of the cells
  std::vector<std::size_t> row_of_run;  // beside runs: its row of the table
  std::vector<std::string> unread;      // why those that are missing could not be read
};

// Curves, speeds and routing of all sections; the shape is described in page/report.js.
[[nodiscard]] nlohmann::json page_data(std::span<const ReportSection> sections);

// What was compared and the results: paragraphs of plain text.
[[nodiscard]] std::vector<std::string> summary_words(const ReportSection& section);

}  // namespace wavroute
