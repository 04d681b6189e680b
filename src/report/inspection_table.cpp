#include "report/inspection_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/numbers.h"
#include "base/utf8.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostOfAMetric = 4;  // verdicts that the text spells out

std::string number(const Json& value, int digits) {
  return value.is_number() ? fmt::format("{:.{}f}", value.get<double>(), digits) : "";
}
std::string magnitude(const Json& value) {
  return value.is_number() ? fmt::format("{:.3g}", value.get<double>()) : "";
}
std::string share(const Json& value) {
  return value.is_number() ? fmt::format("{:.1f} %", 100.0 * value.get<double>()) : "";
}

struct Column {
  std::string heading;
  std::vector<std::string> cells;
};

// Columns without any value are left out; the first is on the left, the others on the right.
std::string table(std::vector<Column> columns) {
  std::erase_if(columns, [](const Column& column) {
    return std::ranges::all_of(column.cells, [](const auto& cell) { return cell.empty(); });
  });
  if (columns.empty()) return {};
  std::string text;
  const auto line = [&](const std::function<std::string(const Column&)>& cell) {
    std::string row;
    for (size_t c = 0; c < columns.size(); ++c) {
      size_t width = display_width(columns[c].heading);
      for (const std::string& other : columns[c].cells) {
        width = std::max(width, display_width(other));
      }
      const std::string own = cell(columns[c]);
      const std::string room(width - display_width(own), ' ');
      row += c == 0 ? fmt::format("{}{}", own, room) : fmt::format("  {}{}", room, own);
    }
    row.erase(row.find_last_not_of(' ') + 1);
    text += row + "\n";
  };
  line([](const Column& column) { return column.heading; });
  for (size_t row = 0; row < columns.front().cells.size(); ++row) {
    line([&](const Column& column) { return column.cells[row]; });
  }
  return text;
}

std::string sublayer_table(const Json& document) {
  std::vector<Column> columns = {{"sublayer", {}},   {"stream", {}},  {"update", {}},
                                 {"gradient", {}},   {"cosine", {}},  {"loss if last", {}},
                                 {"age", {}},        {"entropy", {}}, {"details", {}},
                                 {"reads most", {}}, {"gate", {}}};
  for (const Json& sublayer : document.at("sublayers")) {
    const Json& norms = sublayer.at("norms");
    const Json& gate = sublayer.at("gate");
    const bool routed = sublayer.at("sources").size() > 1;
    const Json none;
    const auto of_router = [&](const char* key) -> const Json& {
      return routed ? sublayer.at(key) : none;
    };
    const std::vector<std::string> cells = {
        sublayer.at("name").get<std::string>(),
        magnitude(norms.at("stream")),
        magnitude(norms.at("update")),
        magnitude(norms.at("gradient")),
        number(sublayer.at("cosine"), 3),
        number(sublayer.at("loss_if_last"), 4),
        number(sublayer.at("age"), 1),
        number(of_router("entropy"), 3),
        share(of_router("details")),
        routed ? fmt::format("{} {}", sublayer.at("top").get<std::string>(),
                             share(sublayer.at("top_share")))
               : "",
        gate.is_null() ? "" : number(gate.at("mean"), 3)};
    for (size_t c = 0; c < columns.size(); ++c) columns[c].cells.push_back(cells[c]);
  }
  return table(std::move(columns));
}

std::string token_table(const Json& document) {
  std::vector<Column> columns = {{"tokens", {}},  {"number", {}}, {"loss", {}}, {"entropy", {}},
                                 {"details", {}}, {"age", {}},    {"gate", {}}, {"depth", {}}};
  for (const auto& [name, group] : document.at("tokens").items()) {
    if (group.at("tokens").get<double>() == 0.0) continue;
    const std::vector<std::string> cells = {group.at("kind") == "position" ? "at " + name : name,
                                            format_count(group.at("tokens").get<double>()),
                                            number(group.at("loss"), 4),
                                            number(group.at("entropy"), 3),
                                            share(group.at("details")),
                                            number(group.at("age"), 1),
                                            number(group.at("gate"), 3),
                                            number(group.at("depth"), 2)};
    for (size_t c = 0; c < columns.size(); ++c) columns[c].cells.push_back(cells[c]);
  }
  return table(std::move(columns));
}

// What routers, gates and layers do on each of several texts.
std::string text_table(const Json& texts) {
  std::vector<Column> columns = {{"sublayer", {}}};
  for (const Json& sublayer : texts.front().at("sublayers")) {
    columns.front().cells.push_back(sublayer.at("name"));
  }
  const auto put = [&](const std::string& heading, const auto& cell) {
    for (size_t i = 0; i < texts.size(); ++i) {
      Column column{fmt::format("{} {}", heading, i + 1), {}};
      for (const Json& sublayer : texts[i].at("sublayers")) column.cells.push_back(cell(sublayer));
      columns.push_back(std::move(column));
    }
  };
  const auto routed = [](const Json& sublayer) { return sublayer.at("sources").size() > 1; };
  put("loss", [](const Json& s) { return number(s.at("loss_if_last"), 4); });
  put("age", [](const Json& s) { return number(s.at("age"), 1); });
  put("entropy", [&](const Json& s) { return routed(s) ? number(s.at("entropy"), 3) : ""; });
  put("details", [&](const Json& s) { return routed(s) ? share(s.at("details")) : ""; });
  put("gate", [](const Json& s) {
    return s.at("gate").is_null() ? std::string() : number(s.at("gate").at("mean"), 3);
  });
  return table(std::move(columns));
}

// All verdicts of a metric, or a few of them and how many more there are; of those that every
// sublayer has, the ones with the largest values.
std::string verdict_lines(const Json& verdicts) {
  std::vector<std::string> metrics;
  std::map<std::string, std::vector<Json>> of_metric;
  for (const Json& verdict : verdicts) {
    const std::string metric = verdict.at("metric");
    if (!of_metric.contains(metric)) metrics.push_back(metric);
    of_metric[metric].push_back(verdict);
  }
  std::string text;
  for (const std::string& metric : metrics) {
    std::vector<Json>& list = of_metric[metric];
    if (metric == "reach_ratio" || metric == "ablation") {
      std::ranges::stable_sort(list, std::ranges::greater(), [](const Json& verdict) {
        return std::abs(verdict.at("value").get<double>());
      });
      const auto beyond = std::ranges::count_if(list, [](const Json& verdict) {
        return std::abs(verdict.at("value").get<double>()) >= verdict.at("threshold").get<double>();
      });
      text += metric == "ablation"
                  ? fmt::format("- what was learnt at {} of {} sublayers changes the loss\n",
                                beyond, list.size())
                  : fmt::format("- {} of {} coefficients left their start\n", beyond, list.size());
    }
    const size_t shown = std::min(list.size(), kMostOfAMetric);
    for (size_t i = 0; i < shown; ++i) {
      text += "- " + list[i].at("text").get<std::string>() + "\n";
    }
    if (shown < list.size()) {
      text += fmt::format("- and {} more of {}\n", list.size() - shown, metric);
    }
  }
  return text;
}

}  // namespace

std::string inspection_text(const Json& document) {
  const Json& texts = document.at("texts");
  std::string text =
      fmt::format("{}, {} layers of width {}: loss {:.4f} nats/token over {} tokens\n",
                  document.at("scheme").get<std::string>(), document.at("layers").get<int64_t>(),
                  document.at("width").get<int64_t>(), document.at("loss").get<double>(),
                  format_count(document.at("scored").get<double>()));
  text += "\n" + sublayer_table(document);
  if (texts.size() == 1) {
    text += "\n" + token_table(document);
  } else {
    for (size_t i = 0; i < texts.size(); ++i) {
      text += fmt::format("\ntext {}: {}, loss {:.4f} over {} tokens\n{}", i + 1,
                          texts[i].at("data").get<std::string>(), texts[i].at("loss").get<double>(),
                          format_count(texts[i].at("scored").get<double>()), token_table(texts[i]));
    }
    text += "\n" + text_table(texts);
  }
  const std::string verdicts = verdict_lines(document.at("verdicts"));
  if (!verdicts.empty()) text += "\n" + verdicts;
  return text;
}

}  // namespace wavroute
