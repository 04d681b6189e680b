// The parts of the page that are plain HTML, so that they show without JavaScript.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "report/page_data.h"

namespace wavroute {

// Text as HTML: & < > " ' become entities. Safe between tags and inside quoted attributes.
[[nodiscard]] std::string html_escaped(std::string_view text);

// JSON for a <script type="application/json">: no "<" in it can close the element, and text that
// is not UTF-8 is repaired.
[[nodiscard]] std::string script_json(const nlohmann::json& data);
[[nodiscard]] std::string script_json(const nlohmann::ordered_json& data);

// `page` with every {{name}} replaced by its value, in one pass, so that inserted text is never
// searched itself.
[[nodiscard]] std::string filled(std::string_view page,
                                 const std::map<std::string, std::string>& values);
// "2026-11-27 17:05 UTC"
[[nodiscard]] std::string now_in_utc();

// A whole page: page/page.html with the style, around a page's own parts.
struct Page {
  std::string command;  // `wavroute COMMAND` made it
  std::string title;
  std::string created;                    // now, where it is empty
  std::string main;                       // HTML
  std::string data = "null";              // what the scripts draw, by script_json
  std::vector<std::string_view> scripts;  // names of page files, in their order
};
[[nodiscard]] std::string whole_page(const Page& page);

[[nodiscard]] std::string html_summary(std::span<const ReportSection> sections);
[[nodiscard]] std::string html_tables(std::span<const ReportSection> sections);
// Machine, text, commands, and each run's state and configuration, in <details>.
[[nodiscard]] std::string html_details(std::span<const ReportSection> sections);

}  // namespace wavroute
