#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/numbers.h"
#include "report/html_parts.h"
#include "report/inspection_table.h"
#include "report/page_file.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

// What a list of verdicts is about, by their metric.
std::string heading(const std::string& metric) {
  static const std::map<std::string, std::string> known = {
      {"loss_if_last", "Where the model could end"},
      {"relative_update", "Sublayers that add little"},
      {"reach_ratio", "Coefficients beside a random walk"},
      {"top_weight", "Routers that read one source"},
      {"detail_share", "Details that are not used"},
      {"gate_open", "Gates stuck at 1"},
      {"gate_closed", "Gates stuck at 0"},
      {"mean_depth", "Halting"},
      {"ablation", "Without what a sublayer's coefficients learnt"}};
  const auto found = known.find(metric);
  return found == known.end() ? metric : found->second;
}

std::string verdicts_html(const Json& verdicts) {
  std::vector<std::pair<std::string, std::string>> lists;
  std::map<std::string, size_t> counts;
  for (const Json& verdict : verdicts) {
    const std::string metric = verdict.at("metric");
    if (counts[metric]++ == 0) lists.emplace_back(metric, "");
    for (auto& [name, items] : lists) {
      if (name != metric) continue;
      items += fmt::format("<li>{}</li>\n", html_escaped(verdict.at("text").get<std::string>()));
    }
  }
  if (lists.empty()) return "<p class=\"note\">Nothing stands out.</p>\n";
  std::string html;
  constexpr size_t kShort = 8;  // what is not folded
  for (const auto& [metric, items] : lists) {
    html += fmt::format(
        "<details{}>\n<summary>{} ({})</summary>\n<ul class=\"verdicts\">\n{}</ul>\n</details>\n",
        counts[metric] <= kShort ? " open" : "", html_escaped(heading(metric)), counts[metric],
        items);
  }
  return html;
}

std::string summary_html(const Json& document) {
  std::string html = fmt::format(
      "<p class=\"lead\">{} with {} layers of width {}: loss {:.4f} nats per token over {} "
      "tokens.</p>\n",
      html_escaped(document.at("scheme").get<std::string>()), document.at("layers").get<int64_t>(),
      document.at("width").get<int64_t>(), document.at("loss").get<double>(),
      format_count(document.at("scored").get<double>()));
  for (const Json& text : document.at("texts")) {
    html +=
        fmt::format("<p class=\"note\">{}: loss {:.4f} over {} tokens</p>\n",
                    html_escaped(text.at("data").get<std::string>()), text.at("loss").get<double>(),
                    format_count(text.at("scored").get<double>()));
  }
  return html;
}

}  // namespace

std::string inspection_page(const Json& document) {
  Page page;
  page.command = "inspect";
  page.title = document.at("run").get<std::string>();
  page.main = filled(
      page_file("inspection.html"),
      {{"summary", summary_html(document)}, {"verdicts", verdicts_html(document.at("verdicts"))}});
  page.data = script_json(document);
  page.scripts = {"theme.js", "chart.js", "panels.js", "grids.js", "lines.js", "inspection.js"};
  return whole_page(page);
}

}  // namespace wavroute
