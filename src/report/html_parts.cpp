#include "report/html_parts.h"
#include "base/numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "report/page_file.h"
#include "report/spikes.h"

namespace wavroute {
namespace {

using nlohmann::json;

std::string section_title(const ReportSection& section) {
  return section.name.empty() ? "Runs" : section.name;
}

// "4.2", "text", "a, b": a JSON value as text.
std::string value_text(const std::string& key, const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() && key.ends_with("_bytes")) return format_bytes(value.get<double>());
  if (value.is_array()) {
    std::string text;
    for (const json& item : value) text += (text.empty() ? "" : ", ") + value_text({}, item);
    return text;
  }
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// A definition list; the terms are words instead of identifiers.
std::string definitions(const json& object) {
  std::string html = "<dl>\n";
  for (const auto& [key, value] : object.items()) {
    if (value.is_null() || (value.is_string() && value.get<std::string>().empty())) continue;
    std::string term = key;
    std::ranges::replace(term, '_', ' ');
    html += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", html_escaped(term),
                        html_escaped(value_text(key, value)));
  }
  return html + "</dl>\n";
}

std::string details(std::string_view title, const std::string& content) {
  return fmt::format("<details>\n<summary>{}</summary>\n{}</details>\n", html_escaped(title),
                     content);
}

json corpus_of(const ReportSection& section) {
  if (!section.comparison.corpus.empty() || section.runs.empty()) return section.comparison.corpus;
  const RunData& first = section.runs.front();
  json corpus = json::object();
  const bool is_common = std::ranges::all_of(section.runs, [&](const RunData& run) {
    return run.measure.train_text == first.measure.train_text &&
           run.measure.valid_text == first.measure.valid_text;
  });
  if (!is_common) return corpus;
  const json& summary = first.summary;
  if (const auto name = text_at(summary, "corpus"); !name.empty()) corpus["name"] = name;
  if (const auto hash = text_at(summary, "corpus_sha256"); !hash.empty()) corpus["sha256"] = hash;
  return corpus;
}

json machine_of(const ReportSection& section) {
  if (!section.comparison.machine.empty() || section.runs.empty()) {
    return section.comparison.machine;
  }
  const RunData& first = section.runs.front();
  const bool is_common = std::ranges::all_of(
      section.runs, [&](const RunData& run) { return run.machine == first.machine; });
  const json& environment = is_common ? first.environment : json();
  return environment.is_object() ? environment : json::object();
}

// Quotes a word for a POSIX shell if it must be.
std::string shell_word(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string commands(const ReportSection& section) {
  if (section.runs.empty()) return {};
  const std::string run = shell_word(section.runs.front().folder.string());
  std::string text;
  if (!section.folder.empty()) {
    text += fmt::format("wavroute report {}\n", shell_word(section.folder.string()));
  }
  text += fmt::format(
      "wavroute train {0}/config.toml --out NEW_FOLDER   # the same run again\n"
      "wavroute eval {0} --data FILE                     # its loss on any text\n"
      "wavroute inspect {0} --data FILE -o PAGE.html     # what its routers and layers do\n"
      "wavroute generate {0} --prompt TEXT\n",
      run);
  return details("Commands", fmt::format("<pre tabindex=\"0\">{}</pre>\n", html_escaped(text)));
}

std::string run_title(const RunData& run) {
  std::string title = run.label;
  if (run.depth) title += fmt::format(", {} layers", *run.depth);
  if (run.seed) title += fmt::format(", seed {}", *run.seed);
  return title;
}

// "none", or how many and where the first are.
std::string spikes_of(const RunData& run) {
  std::vector<double> losses;
  for (const TrainPoint& point : run.train) losses.push_back(point.loss);
  const std::vector<std::size_t> spikes = find_spikes(losses);
  if (spikes.empty()) return "none";
  constexpr std::size_t kNamed = 8;
  std::string steps;
  for (std::size_t i = 0; i < std::min(spikes.size(), kNamed); ++i) {
    steps += fmt::format("{}{}", i == 0 ? "" : ", ", run.train[spikes[i]].step);
  }
  return fmt::format("{}, at step {}{}", spikes.size(), steps,
                     spikes.size() > kNamed ? ", ..." : "");
}

std::string run_details(const RunData& run, const json& machine) {
  json facts = {{"folder", run.folder.string()}, {"status", run.status}};
  const int64_t reached = run.train.empty() ? 0 : run.train.back().step;
  if (reached > 0) facts["last training step"] = reached;
  if (run.val_loss) facts["validation loss"] = fmt::format("{:.5f}", *run.val_loss);
  if (run.bits_per_byte) facts["bits per byte"] = fmt::format("{:.5f}", *run.bits_per_byte);
  if (!run.train.empty()) facts["spikes of the loss"] = spikes_of(run);
  if (run.tokens_per_s) facts["tokens per second, training"] = format_count(*run.tokens_per_s);
  if (run.peak_rss_bytes) facts["peak memory, training"] = format_bytes(*run.peak_rss_bytes);
  std::string content = definitions(facts);
  if (run.environment.is_object() && run.environment != machine) {
    content += definitions(run.environment);
  }
  if (!run.config.empty()) {
    content += fmt::format("<pre tabindex=\"0\">{}</pre>\n", html_escaped(run.config));
  }
  return details(run_title(run), content);
}

// Of a table with many columns, those that say what a row costs stand in a table of their own: no
// window is wide enough for all.
bool is_of_cost(const TableColumn& column) {
  constexpr std::array<std::string_view, 8> kNames = {
      "tokens_per_s", "ratio", "target", "equal_loss", "speedup", "memory", "parameters", "flops"};
  return std::ranges::find(kNames, column.name) != kNames.end();
}

bool names_the_row(const TableColumn& column) {
  return column.name == "depth" || column.name == "label";
}

std::string columns_html(const Table& table, const std::vector<TableColumn>& columns,
                         std::string_view name) {
  std::string html = fmt::format(
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n<table>\n"
      "<thead><tr>",
      name);
  for (const TableColumn& column : columns) {
    html += fmt::format("<th scope=\"col\" class=\"{}\">{}</th>",
                        column.numeric ? "number" : "text", html_escaped(column.heading));
  }
  html += "</tr></thead>\n<tbody>\n";
  for (std::size_t row = 0; row < table.compared; ++row) {
    const bool new_depth = row > 0 && table.rows[row].depth != table.rows[row - 1].depth;
    html += new_depth ? "<tr class=\"new-depth\">" : "<tr>";
    for (const TableColumn& column : columns) {
      const std::string text = html_escaped(column.cells[row]);
      if (column.name == "label") {
        html += fmt::format("<th scope=\"row\" class=\"text\">{}</th>", text);
      } else {
        const bool shown = column.name == "difference" && table.rows[row].is_shown();
        html += fmt::format("<td class=\"{}{}\">{}</td>", column.numeric ? "number" : "text",
                            shown ? " shown" : "", text);
      }
    }
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table>\n</div>\n";
}

std::string table_html(const Table& table) {
  constexpr std::size_t kMostInOne = 12;
  const auto all = table_columns(table);
  std::vector<TableColumn> results, costs;
  for (const TableColumn& column : all) {
    if (!is_of_cost(column)) results.push_back(column);
    if (is_of_cost(column) || names_the_row(column)) costs.push_back(column);
  }
  const std::string html = all.size() <= kMostInOne
                               ? columns_html(table, all, "Results")
                               : columns_html(table, results, "Results") + "<h3>Cost</h3>\n" +
                                     columns_html(table, costs, "Cost");
  const bool any_shown = std::ranges::any_of(table.rows, &TableRow::is_shown);
  return html + fmt::format("<p class=\"note\">{}{}</p>\n", html_escaped(table.note),
                            any_shown ? " Bold: p < 0.05, adjusted." : "");
}

}  // namespace

std::string html_escaped(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        // HTML allows no other control characters.
        result += static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t' || c == '\r'
                      ? std::string(1, c)
                      : "\xEF\xBF\xBD";
    }
  }
  return result;
}

namespace {

std::string script_text(const std::string& text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    if (c == '<') {
      result += "\\u003c";
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace

std::string script_json(const json& data) {
  return script_text(data.dump(-1, ' ', true, json::error_handler_t::replace));
}

std::string script_json(const nlohmann::ordered_json& data) {
  return script_text(data.dump(-1, ' ', true, json::error_handler_t::replace));
}

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

std::string now_in_utc() {
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm calendar{};
  gmtime_r(&now, &calendar);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", calendar.tm_year + 1900,
                     calendar.tm_mon + 1, calendar.tm_mday, calendar.tm_hour, calendar.tm_min);
}

std::string whole_page(const Page& page) {
  std::string script;
  for (const std::string_view name : page.scripts) script += page_file(name);
  return filled(page_file("page.html"),
                {{"command", page.command},
                 {"title", html_escaped(page.title)},
                 {"created", html_escaped(page.created.empty() ? now_in_utc() : page.created)},
                 {"style", std::string(page_file("style.css"))},
                 {"main", page.main},
                 {"data", page.data},
                 {"script", script}});
}

std::string html_summary(std::span<const ReportSection> sections) {
  std::string html;
  for (const ReportSection& section : sections) {
    if (sections.size() > 1) {
      html += fmt::format("<h2>{}</h2>\n", html_escaped(section_title(section)));
    }
    for (const std::string& paragraph : summary_words(section)) {
      html += fmt::format("<p class=\"lead\">{}</p>\n", html_escaped(paragraph));
    }
  }
  return html;
}

std::string html_tables(std::span<const ReportSection> sections) {
  std::string html;
  for (const ReportSection& section : sections) {
    if (sections.size() > 1) {
      html += fmt::format("<h3>{}</h3>\n", html_escaped(section_title(section)));
    }
    html += table_html(section.table);
  }
  return html;
}

std::string html_details(std::span<const ReportSection> sections) {
  std::string html;
  for (const ReportSection& section : sections) {
    if (sections.size() > 1) {
      html += fmt::format("<h3>{}</h3>\n", html_escaped(section_title(section)));
    }
    const json machine = machine_of(section), corpus = corpus_of(section);
    if (!machine.empty()) html += details("Machine", definitions(machine));
    if (!corpus.empty()) html += details("Text", definitions(corpus));
    html += commands(section);
    for (const RunData& run : section.runs) html += run_details(run, machine);
  }
  return html;
}

}  // namespace wavroute
