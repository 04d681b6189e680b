#include "report/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/printable.h"
#include "config/load.h"
#include "io/file.h"
#include "io/json_text.h"
#include "report/html_parts.h"
#include "report/page_data.h"
#include "report/page_file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kComparisonFile = "compare.json";

// A path that a compare.json names: it must be below its folder, links followed.
fs::path run_below(const fs::path& folder, const fs::path& run, const std::string& where) {
  const fs::path plain = run.lexically_normal();
  std::error_code error;
  const fs::path root = fs::weakly_canonical(folder, error);
  const fs::path real = fs::weakly_canonical(folder / plain, error);
  const auto [end, ignored] = std::ranges::mismatch(root, real);
  if (error || plain.is_absolute() || *plain.begin() == ".." || end != root.end()) {
    throw expected("a run inside the folder of the comparison", printable(run.string()),
                   fmt::format("in {}", where),
                   "the file was not written by wavroute compare; give that run on its own");
  }
  return folder / plain;
}

// Gives each run the label of its row, which no other row of the depth has.
void label_runs(ReportSection& section, const std::vector<std::size_t>& cell_of_run) {
  for (std::size_t i = 0; i < section.runs.size(); ++i) {
    section.row_of_run.push_back(section.table.row_of_cell[cell_of_run[i]]);
    section.runs[i].label = section.table.rows[section.row_of_run.back()].label;
  }
}

// What the run itself says goes before what compare.json says of it, which is of the comparison's
// end: the run may have gone on since.
void check_cell(Cell& cell, const RunData& run, int64_t last) {
  const Cell told = cell;
  take_run(cell, run, last);
  const bool has_result = cell.status == CellStatus::kFinished && cell.val_loss;
  const bool told_end = told.status == CellStatus::kFailed || told.status == CellStatus::kDiverged;
  if (!has_result && (told_end || cell.status == CellStatus::kPending)) cell.status = told.status;
  if (!has_result && told.status == CellStatus::kFinished) {
    cell.val_loss = told.val_loss;
    cell.bits_per_byte = told.bits_per_byte;
    cell.loss = told.loss;
    cell.loss_bits = told.loss_bits;
  }
  if (told.parameters) cell.parameters = told.parameters;
  if (told.flops_per_token) cell.flops_per_token = told.flops_per_token;
}

// How the run departs from the configuration that the comparison gave to its cell.
std::vector<std::string> unplanned(const fs::path& comparison, const RunData& run) {
  const fs::path file = comparison / "configs" / (run.folder.filename().string() + ".toml");
  RunSettings planned;
  try {
    planned = read_run_config(read_config_text(file), file.string()).settings;
  } catch (const UserError&) {  // without it, only what the run says itself
  }
  return unplanned_keys(planned, run.settings);
}

ReportSection read_comparison(const fs::path& folder) {
  const fs::path file = folder / kComparisonFile;
  ReportSection section;
  section.comparison = parse_comparison(read_json(file), file.string());
  section.name = section.comparison.name.empty() ? "comparison" : section.comparison.name;
  section.folder = folder;
  std::vector<std::size_t> cell_of_run;
  std::set<fs::path> seen;
  for (std::size_t i = 0; i < section.comparison.cells.size(); ++i) {
    Cell& cell = section.comparison.cells[i];
    if (cell.run.empty()) continue;
    const fs::path run_folder = run_below(folder, cell.run, file.string());
    if (!is_run_folder(run_folder)) continue;  // not begun
    std::error_code ignored;
    if (!seen.insert(fs::weakly_canonical(run_folder, ignored)).second) {
      throw expected(
          "a run of its own for every cell", fmt::format("{} twice", printable(cell.run.string())),
          fmt::format("in {}", file.string()), "the file was not written by wavroute compare");
    }
    try {
      RunData run = read_run(run_folder);
      if (cell.depth) run.depth = cell.depth;
      if (cell.seed) run.seed = cell.seed;
      check_cell(cell, run, section.comparison.last);
      cell.unplanned = unplanned(folder, run);
      section.runs.push_back(std::move(run));
      cell_of_run.push_back(i);
    } catch (const UserError& error) {  // the other cells can still be shown
      section.unread.push_back(error.what());
    }
  }
  section.table = make_table(section.comparison);
  label_runs(section, cell_of_run);
  return section;
}

ReportSection section_of_runs(std::vector<RunData> runs) {
  ReportSection section;
  section.comparison = comparison_of_runs(runs);
  section.runs = std::move(runs);
  section.table = make_table(section.comparison);
  std::vector<std::size_t> cell_of_run(section.runs.size());
  std::iota(cell_of_run.begin(), cell_of_run.end(), std::size_t{0});
  label_runs(section, cell_of_run);
  return section;
}

// Each compare folder is a section; the runs given on their own are one more, the last.
std::vector<ReportSection> read_sections(std::span<const fs::path> folders) {
  std::vector<ReportSection> sections;
  std::vector<RunData> alone;
  std::set<fs::path> seen;
  for (const fs::path& folder : folders) {
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) {
      throw expected("a run folder", "none", fmt::format("at {}", folder.string()),
                     "give the folder that wavroute train or wavroute compare wrote");
    }
    if (!seen.insert(fs::weakly_canonical(folder, ignored)).second) continue;  // given twice
    if (fs::exists(folder / kComparisonFile, ignored)) {
      sections.push_back(read_comparison(folder));
    } else {
      alone.push_back(read_run(folder));
    }
  }
  if (!alone.empty()) sections.push_back(section_of_runs(std::move(alone)));
  return sections;
}

std::string title_of(std::span<const ReportSection> sections) {
  std::string title;
  for (const ReportSection& section : sections) {
    const std::string name = !section.name.empty() ? section.name
                             : section.runs.size() == 1
                                 ? section.runs.front().label
                                 : fmt::format("{} runs", section.runs.size());
    title += (title.empty() ? "" : ", ") + name;
  }
  return title;
}

}  // namespace

void write_report(std::span<const fs::path> runs_or_compare_folders, const fs::path& out) {
  if (runs_or_compare_folders.empty()) {
    throw expected("at least one run folder", "none", {}, "wavroute report RUN...");
  }
  const auto sections = read_sections(runs_or_compare_folders);
  Page page;
  page.command = "report";
  page.title = title_of(sections);
  if (sections.size() == 1) page.created = sections.front().comparison.created;
  page.main = filled(page_file("report.html"), {{"summary", html_summary(sections)},
                                                {"tables", html_tables(sections)},
                                                {"details", html_details(sections)}});
  page.data = script_json(page_data(sections));
  page.scripts = {"theme.js", "chart.js",  "bands.js",  "curves.js",
                  "lines.js", "layers.js", "panels.js", "report.js"};
  write_file_atomic(out, whole_page(page));
}

}  // namespace wavroute
