#include "report/page_data.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/utf8.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr std::size_t kMostTrainPoints = 800;  // more than a screen has columns for
constexpr std::size_t kMostValidationPoints = 2000;
constexpr std::size_t kMostLayerPoints = 200, kMostLayerLines = 1024;
constexpr std::size_t kMostRoutingRows = 8192;  // sublayers, gates, depths: more is not a model
constexpr std::size_t kLongestLabel = 200;      // bytes
constexpr std::size_t kMostKeys = 24;           // to group by
// A row has no cells for the sources that come after its own: half of the cells are empty in a
// model whose sublayers read everything before them.
constexpr std::size_t kPlacesPerWeight = 8, kFreePlaces = 4096;

template <typename Value>
json or_null(const std::optional<Value>& value) {
  return value ? json(*value) : json();
}

// Five digits are more than a screen shows, and halve the size of the page.
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

// Validation losses keep all digits: they are subtracted from one another. Of very many, every
// n-th and the last.
json validation_curve(const std::vector<ValidationPoint>& points) {
  json steps = json::array(), losses = json::array(), bits = json::array();
  const std::size_t stride = points.size() / kMostValidationPoints + 1;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (i % stride != 0 && i + 1 != points.size()) continue;
    const ValidationPoint& point = points[i];
    steps.push_back(point.step);
    losses.push_back(point.loss);
    bits.push_back(or_null(point.bits_per_byte));
  }
  return {{"steps", steps}, {"loss", losses}, {"bits_per_byte", bits}};
}

// {"steps", "stream", "update", "entropy"}: of each a list of lines, one per reader, with a value
// or null at each step. Of very many steps every n-th and the last.
json layer_curves(const std::vector<LayerPoint>& points) {
  if (points.empty()) return nullptr;
  std::vector<const LayerPoint*> shown;
  const std::size_t stride = points.size() / kMostLayerPoints + 1;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (i % stride == 0 || i + 1 == points.size()) shown.push_back(&points[i]);
  }
  json curves = {{"steps", json::array()}};
  for (const LayerPoint* point : shown) curves["steps"].push_back(point->step);
  const auto put = [&](const char* key, auto list) {
    std::size_t lines = 0;
    for (const LayerPoint* point : shown) lines = std::max(lines, (point->*list).size());
    json all = json::array();
    for (std::size_t line = 0; line < std::min(lines, kMostLayerLines); ++line) {
      json values = json::array();
      for (const LayerPoint* point : shown) {
        const auto& numbers = point->*list;
        const auto value = line < numbers.size() ? numbers[line] : std::nullopt;
        values.push_back(value ? json(rounded(*value)) : json());
      }
      all.push_back(std::move(values));
    }
    curves[key] = std::move(all);
  };
  put("stream", &LayerPoint::stream);
  put("update", &LayerPoint::update);
  put("entropy", &LayerPoint::entropy);
  return curves;
}

json list_at(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_array() ? *found : json::array();
}

std::string label_at(const json& object, const char* key) {
  const std::string label = text_at(object, key);
  return label.substr(0, utf8_boundary(label, kLongestLabel));
}

// Sublayers by rows, sources by columns: weights[row][column], null where a row has no such source.
// Null where the map would have far more cells than the file has weights: its sublayers then share
// no sources, which is true of no model.
json source_weights(const json& routing) {
  json columns = json::array(), rows = json::array();
  std::map<std::string, std::size_t> column_of;
  std::size_t weights_held = 0, places = 0;
  for (const json& sublayer : list_at(routing, "sublayers")) {
    json weights = json::array();
    for (const json& source : list_at(sublayer, "sources")) {
      const std::string label = label_at(source, "label");
      const auto weight = number_at(source, "weight");
      if (!weight) continue;
      const auto [column, is_new] = column_of.try_emplace(label, columns.size());
      if (is_new) columns.push_back({{"label", label}, {"type", label_at(source, "type")}});
      const std::size_t needed = std::max(weights.size(), column->second + 1);
      places += needed - weights.size();
      if (places > kPlacesPerWeight * ++weights_held + kFreePlaces) return nullptr;
      while (weights.size() < needed) weights.push_back(nullptr);
      weights[column->second] = rounded(*weight);
    }
    rows.push_back({{"sublayer", or_null(integer_at(sublayer, "sublayer"))},
                    {"layer", or_null(integer_at(sublayer, "layer"))},
                    {"kind", label_at(sublayer, "kind")},
                    {"entropy", or_null(number_at(sublayer, "entropy"))},
                    {"weights", weights}});
    if (rows.size() > kMostRoutingRows) return nullptr;
  }
  return {{"columns", columns}, {"rows", rows}};
}

json gates(const json& routing) {
  json result = json::array();
  for (const json& gate : list_at(routing, "gates")) {
    const auto average = number_at(gate, "mean");
    if (!average) continue;
    result.push_back({{"sublayer", or_null(integer_at(gate, "sublayer"))},
                      {"kind", label_at(gate, "kind")},
                      {"mean", *average},
                      {"p10", or_null(number_at(gate, "p10"))},
                      {"p90", or_null(number_at(gate, "p90"))}});
    if (result.size() > kMostRoutingRows) return nullptr;
  }
  return result;
}

// The share of tokens that halt at depth 1, 2, ...; counts and shares look the same.
json halting_depth(const json& routing) {
  if (!routing.contains("depth") || !routing.at("depth").is_object()) return nullptr;
  const json& depth = routing.at("depth");
  std::vector<double> shares;
  double total = 0.0;
  const json histogram = list_at(depth, "histogram");
  if (histogram.size() > kMostRoutingRows) return nullptr;
  for (const json& value : histogram) {
    shares.push_back(value.is_number() ? std::max(0.0, value.get<double>()) : 0.0);
    total += shares.back();
  }
  if (shares.empty() || total <= 0.0 || !std::isfinite(total)) return nullptr;
  for (double& share : shares) share = rounded(share / total);
  return {{"mean", or_null(number_at(depth, "mean"))}, {"shares", shares}};
}

// Null for a file that can't be a model's routing.
json routing_data(const json& routing) {
  if (!routing.is_object()) return nullptr;
  const json sources = source_weights(routing), gate_list = gates(routing);
  if (sources.is_null() || gate_list.is_null()) return nullptr;
  return {{"step", or_null(integer_at(routing, "step"))},
          {"tokens", or_null(integer_at(routing, "tokens"))},
          {"sources", sources},
          {"gates", gate_list},
          {"depth", halting_depth(routing)}};
}

// The keys in which any two runs differ; "seed" is one where they have several.
std::vector<std::string> differing_keys(std::span<const ReportSection> sections) {
  std::map<std::string, std::set<std::string>> values;
  std::set<std::optional<int64_t>> seeds;
  std::size_t runs = 0;
  std::map<std::string, std::size_t> holders;
  for (const ReportSection& section : sections) {
    for (const RunData& run : section.runs) {
      ++runs;
      seeds.insert(run.seed);
      for (const auto& [key, value] : run.settings) {
        ++holders[key];
        values[key].insert(value);
      }
    }
  }
  std::vector<std::string> keys;
  for (const auto& [key, different] : values) {
    const bool differs = different.size() > 1 || holders[key] < runs;
    if (differs && key != "name" && keys.size() < kMostKeys) keys.push_back(key);
  }
  if (seeds.size() > 1) keys.emplace_back("seed");
  return keys;
}

json values_of(const RunData& run, const std::vector<std::string>& keys) {
  json values = json::object();
  for (const std::string& key : keys) {
    const auto found = run.settings.find(key);
    if (found != run.settings.end()) {
      const std::string value = shown_value(found->second);
      values[key] = value.substr(0, utf8_boundary(value, kLongestLabel));
    } else if (key == "seed" && run.seed) {
      values[key] = std::to_string(*run.seed);
    }
  }
  return values;
}

json run_data(const RunData& run, const TableRow& row, const std::string& reference,
              const std::string& prefix, const std::vector<std::string>& keys) {
  const bool is_compared = row.is_reference || row.difference.has_value();
  return {{"label", prefix + run.label},
          {"tried", row.role != CellRole::kScheme},
          {"keys", values_of(run, keys)},
          {"reference", is_compared ? json(prefix + reference) : json()},
          {"depth", or_null(run.depth)},
          {"seed", or_null(run.seed)},
          {"status", run.status},
          {"train", train_curve(run.train)},
          {"validation", validation_curve(run.validation)},
          {"layers", layer_curves(run.layers)},
          {"routing", routing_data(run.routing)}};
}

// The label of the reference at the depth of `row`.
std::string reference_label(const Table& table, const TableRow& row) {
  for (const TableRow& other : table.rows) {
    if (other.is_reference && other.depth == row.depth) return other.label;
  }
  return table.reference;
}

}  // namespace

json page_data(std::span<const ReportSection> sections) {
  json runs = json::array(), rows = json::array();
  const std::vector<std::string> keys = differing_keys(sections);
  for (const ReportSection& section : sections) {
    const std::string prefix =
        sections.size() > 1 && !section.name.empty() ? section.name + ": " : std::string();
    for (std::size_t i = 0; i < section.runs.size(); ++i) {
      const TableRow& row = section.table.rows[section.row_of_run[i]];
      runs.push_back(
          run_data(section.runs[i], row, reference_label(section.table, row), prefix, keys));
    }
    for (const TableRow& row : section.table.compared_rows()) {
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
