#include "report/html.h"

#include <fmt/format.h>

#include <chrono>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "io/file.h"
#include "report/html_parts.h"
#include "report/page_data.h"
#include "report/page_file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kComparisonFile = "compare.json";

ReportSection read_comparison(const fs::path& folder) {
  const fs::path file = folder / kComparisonFile;
  ReportSection section;
  section.comparison = parse_comparison(read_json(file), file.string());
  section.name = section.comparison.name.empty() ? "comparison" : section.comparison.name;
  section.folder = folder;
  for (const Cell& cell : section.comparison.cells) {
    if (cell.run.empty() || !is_run_folder(folder / cell.run)) continue;  // not begun
    RunData run = read_run(folder / cell.run);
    run.label = cell.label;  // the comparison's word goes before the run's own
    if (cell.depth) run.depth = cell.depth;
    if (cell.seed) run.seed = cell.seed;
    section.runs.push_back(std::move(run));
  }
  section.table = make_table(section.comparison);
  return section;
}

// Each compare folder is a section; the runs given on their own are one more, the last.
std::vector<ReportSection> read_sections(std::span<const fs::path> folders) {
  std::vector<ReportSection> sections;
  ReportSection alone;
  for (const fs::path& folder : folders) {
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) {
      throw UserError(fmt::format("expected a run folder, found none at {}", folder.string()),
                      "give the folder that wavroute train or wavroute compare wrote");
    }
    if (fs::exists(folder / kComparisonFile, ignored)) {
      sections.push_back(read_comparison(folder));
    } else {
      alone.runs.push_back(read_run(folder));
    }
  }
  if (!alone.runs.empty()) {
    alone.comparison = comparison_of_runs(alone.runs);
    alone.table = make_table(alone.comparison);
    sections.push_back(std::move(alone));
  }
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

std::string now_in_utc() {
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm calendar{};
  gmtime_r(&now, &calendar);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", calendar.tm_year + 1900,
                     calendar.tm_mon + 1, calendar.tm_mday, calendar.tm_hour, calendar.tm_min);
}

// Replaces every {{name}} in one pass, so that what is filled in is never searched itself.
std::string filled(std::string_view page, const std::map<std::string, std::string>& values) {
  std::string result;
  while (true) {
    const std::size_t open = page.find("{{");
    const std::size_t close = page.find("}}", open == page.npos ? 0 : open);
    result += page.substr(0, open);
    if (open == page.npos || close == page.npos) return result;
    result += values.at(std::string(page.substr(open + 2, close - open - 2)));
    page.remove_prefix(close + 2);
  }
}

}  // namespace

void write_report(std::span<const fs::path> runs_or_compare_folders, const fs::path& out) {
  if (runs_or_compare_folders.empty()) {
    throw UserError("expected at least one run folder, none was given", "wavroute report RUN...");
  }
  const auto sections = read_sections(runs_or_compare_folders);
  std::string script;
  for (const auto* file : {"chart.js", "curves.js", "panels.js", "report.js"}) {
    script += page_file(file);
  }
  const std::string created = sections.size() == 1 ? sections.front().comparison.created : "";
  write_file_atomic(out,
                    filled(page_file("page.html"),
                           {{"title", html_escaped(title_of(sections))},
                            {"created", html_escaped(created.empty() ? now_in_utc() : created)},
                            {"style", std::string(page_file("style.css"))},
                            {"summary", html_summary(sections)},
                            {"tables", html_tables(sections)},
                            {"details", html_details(sections)},
                            {"data", script_json(page_data(sections))},
                            {"script", script}}));
}

}  // namespace wavroute
