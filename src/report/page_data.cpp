#include "report/page_data.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace wavroute {
namespace {

using nlohmann::json;

constexpr std::size_t kMostTrainPoints = 800;  // more than a screen has columns for

template <typename Value>
json or_null(const std::optional<Value>& value) {
  return value ? json(*value) : json();
}

// Five digits are more than a screen shows, and halve the page.
double rounded(double value) {
  if (value == 0.0 || !std::isfinite(value)) return value;
  const double scale = std::pow(10.0, 5.0 - std::ceil(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

// {"steps": [...], "loss": [...]}; a long run in equal bins, each with its mean loss at its last
// step.
json train_curve(const std::vector<TrainPoint>& points) {
  json steps = json::array(), losses = json::array();
  const std::size_t bins = std::min(points.size(), kMostTrainPoints);
  for (std::size_t bin = 0; bin < bins; ++bin) {
    const std::size_t begin = bin * points.size() / bins, end = (bin + 1) * points.size() / bins;
    double sum = 0.0;
    for (std::size_t i = begin; i < end; ++i) sum += points[i].loss;
    steps.push_back(points[end - 1].step);
    losses.push_back(rounded(sum / static_cast<double>(end - begin)));
  }
  return {{"steps", steps}, {"loss", losses}};
}

// Validation losses keep all digits: they are subtracted from one another.
json validation_curve(const std::vector<ValidationPoint>& points) {
  json steps = json::array(), losses = json::array(), bits = json::array();
  for (const ValidationPoint& point : points) {
    steps.push_back(point.step);
    losses.push_back(point.loss);
    bits.push_back(or_null(point.bits_per_byte));
  }
  return {{"steps", steps}, {"loss", losses}, {"bits_per_byte", bits}};
}

json list_at(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_array() ? *found : json::array();
}

// Sublayers by rows, sources by columns: weights[row][column], null where a row has no such source.
json source_weights(const json& routing) {
  json columns = json::array(), rows = json::array();
  std::map<std::string, std::size_t> column_of;
  for (const json& sublayer : list_at(routing, "sublayers")) {
    json weights = json::array();
    for (const json& source : list_at(sublayer, "sources")) {
      const std::string label = text_at(source, "label");
      const auto weight = number_at(source, "weight");
      if (!weight) continue;
      const auto [column, is_new] = column_of.try_emplace(label, columns.size());
      if (is_new) columns.push_back({{"label", label}, {"type", text_at(source, "type")}});
      while (weights.size() <= column->second) weights.push_back(nullptr);
      weights[column->second] = rounded(*weight);
    }
    rows.push_back({{"sublayer", or_null(integer_at(sublayer, "sublayer"))},
                    {"layer", or_null(integer_at(sublayer, "layer"))},
                    {"kind", text_at(sublayer, "kind")},
                    {"entropy", or_null(number_at(sublayer, "entropy"))},
                    {"weights", weights}});
  }
  return {{"columns", columns}, {"rows", rows}};
}

json gates(const json& routing) {
  json result = json::array();
  for (const json& gate : list_at(routing, "gates")) {
    const auto average = number_at(gate, "mean");
    if (!average) continue;
    result.push_back({{"sublayer", or_null(integer_at(gate, "sublayer"))},
                      {"kind", text_at(gate, "kind")},
                      {"mean", *average},
                      {"p10", or_null(number_at(gate, "p10"))},
                      {"p90", or_null(number_at(gate, "p90"))}});
  }
  return result;
}

// The share of tokens that halt at depth 1, 2, ...; counts and shares look the same.
json halting_depth(const json& routing) {
  if (!routing.contains("depth") || !routing.at("depth").is_object()) return nullptr;
  const json& depth = routing.at("depth");
  std::vector<double> shares;
  double total = 0.0;
  for (const json& value : list_at(depth, "histogram")) {
    shares.push_back(value.is_number() ? std::max(0.0, value.get<double>()) : 0.0);
    total += shares.back();
  }
  if (shares.empty() || total <= 0.0) return nullptr;
  for (double& share : shares) share = rounded(share / total);
  return {{"mean", or_null(number_at(depth, "mean"))}, {"shares", shares}};
}

json routing_data(const json& routing) {
  if (!routing.is_object()) return nullptr;
  return {{"step", or_null(integer_at(routing, "step"))},
          {"tokens", or_null(integer_at(routing, "tokens"))},
          {"sources", source_weights(routing)},
          {"gates", gates(routing)},
          {"depth", halting_depth(routing)}};
}

json run_data(const RunData& run, const ReportSection& section, const std::string& prefix) {
  return {{"label", prefix + run.label},
          {"reference",
           section.comparison.unequal.empty() ? json(prefix + section.table.reference) : json()},
          {"depth", or_null(run.depth)},
          {"seed", or_null(run.seed)},
          {"status", run.status},
          {"train", train_curve(run.train)},
          {"validation", validation_curve(run.validation)},
          {"routing", routing_data(run.routing)}};
}

}  // namespace

json page_data(std::span<const ReportSection> sections) {
  json runs = json::array(), rows = json::array();
  for (const ReportSection& section : sections) {
    const std::string prefix =
        sections.size() > 1 && !section.name.empty() ? section.name + ": " : std::string();
    for (const RunData& run : section.runs) runs.push_back(run_data(run, section, prefix));
    for (const TableRow& row : section.table.rows) {
      rows.push_back({{"label", prefix + row.label},
                      {"depth", or_null(row.depth)},
                      {"tokens_per_s", or_null(row.tokens_per_s)},
                      {"ratio", or_null(row.speed_ratio)},
                      {"memory", or_null(row.peak_rss_bytes)}});
    }
  }
  return {{"runs", runs}, {"rows", rows}};
}

}  // namespace wavroute
