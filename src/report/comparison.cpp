#include "report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <system_error>
#include <utility>

#include "base/printable.h"
#include "io/json_text.h"
#include "report/spikes.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr std::size_t kMostCells = 10000;
constexpr int64_t kFormat = 1;  // of compare.json; without a number it is 1

constexpr std::array<std::pair<CellStatus, const char*>, 6> kStatuses = {{
    {CellStatus::kFinished, "finished"},
    {CellStatus::kDiverged, "diverged"},
    {CellStatus::kFailed, "failed"},
    {CellStatus::kPending, "pending"},
    {CellStatus::kRunning, "running"},
    {CellStatus::kStopped, "stopped"},
}};

constexpr std::array<std::pair<CellRole, const char*>, 3> kRoles = {{
    {CellRole::kScheme, "scheme"},
    {CellRole::kRate, "rate"},
    {CellRole::kBudget, "budget"},
}};

CellRole parse_role(const std::string& text, const std::string& where) {
  if (text.empty()) return CellRole::kScheme;  // a file of before there were others
  for (const auto& [role, name] : kRoles) {
    if (text == name) return role;
  }
  throw expected("a role scheme, rate or budget", printable(text), fmt::format("in {}", where),
                 "run the comparison again: wavroute compare keeps what is finished");
}

CellStatus parse_status(const std::string& text, const std::string& where) {
  for (const auto& [status, name] : kStatuses) {
    if (text == name) return status;
  }
  throw expected("a status finished, diverged, failed, pending, running or stopped",
                 printable(text), fmt::format("in {}", where),
                 "run the comparison again: wavroute compare keeps what is finished");
}

// The list under `key`, empty where it is missing.
json list_at(const json& document, const char* key, const std::string& where) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return json::array();
  if (found->is_array()) return *found;
  throw expected(fmt::format("a list \"{}\"", key), "something else", fmt::format("in {}", where));
}

json object_at(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_object() ? *found : json::object();
}

Measure parse_measure(const json& object) {
  return {text_at(object, "valid_sha256"),  text_at(object, "train_sha256"),
          text_at(object, "tokenizer"),     integer_at(object, "context"),
          integer_at(object, "max_tokens"), integer_at(object, "tokens"),
          integer_at(object, "bytes")};
}

Cell parse_cell(const json& object, const std::string& where) {
  Cell cell;
  cell.scheme = text_at(object, "scheme");
  cell.label = text_at(object, "label");
  if (cell.label.empty()) cell.label = cell.scheme;
  if (cell.label.empty()) {
    throw expected("a cell with a \"label\"", json_excerpt(object), fmt::format("in {}", where),
                   "run the comparison again: wavroute compare keeps what is finished");
  }
  cell.depth = integer_at(object, "depth");
  cell.seed = integer_at(object, "seed");
  cell.run = text_at(object, "run");
  cell.status = parse_status(text_at(object, "status"), where);
  cell.role = parse_role(text_at(object, "role"), where);
  cell.budget = number_at(object, "budget");
  cell.lr = number_at(object, "lr");
  for (const json& label : list_at(object, "wider_for", where)) {
    if (label.is_string()) cell.wider_for.push_back(label.get<std::string>());
  }
  cell.loss = number_at(object, "loss");
  cell.loss_bits = number_at(object, "loss_bits_per_byte");
  cell.spikes = integer_at(object, "spikes");
  cell.val_loss = number_at(object, "val_loss");
  cell.bits_per_byte = number_at(object, "bits_per_byte");
  cell.parameters = number_at(object, "parameters");
  cell.flops_per_token = number_at(object, "flops_per_token");
  cell.measure = parse_measure(object_at(object, "measure"));
  return cell;
}

// How a run ended, by its own summary, in the words of a comparison.
CellStatus status_of(const RunData& run) {
  for (const auto& [status, name] : kStatuses) {
    if (run.status == name) return status;
  }
  return CellStatus::kPending;
}

// Whether names and configurations (of a depth) correspond one to one.
bool names_tell_apart(std::span<const RunData> runs) {
  using Key = std::pair<std::optional<int64_t>, std::string>;
  std::map<Key, RunSettings> of_name;
  std::map<std::pair<std::optional<int64_t>, RunSettings>, std::string> of_settings;
  for (const RunData& run : runs) {
    const auto by_name = of_name.try_emplace({run.depth, run.label}, run.settings).first;
    const auto by_settings = of_settings.try_emplace({run.depth, run.settings}, run.label).first;
    if (by_name->second != run.settings || by_settings->second != run.label) return false;
  }
  return true;
}

}  // namespace

Comparison parse_comparison(const json& document, const std::string& where) {
  if (!document.is_object()) {
    throw expected("an object", "something else", fmt::format("in {}", where));
  }
  check_format(document, kFormat, "a comparison", where);
  Comparison result;
  result.name = text_at(document, "name");
  result.created = text_at(document, "created");
  result.machine = object_at(document, "machine");
  result.corpus = object_at(document, "corpus");
  result.last = std::max<int64_t>(1, integer_at(document, "last").value_or(1));
  result.target_loss = number_at(document, "target_loss");
  const json cells = list_at(document, "cells", where);
  if (cells.size() > kMostCells) {
    throw expected(fmt::format("at most {} cells", kMostCells), cells.size(),
                   fmt::format("in {}", where), "no comparison is that large");
  }
  for (const json& cell : cells) {
    result.cells.push_back(parse_cell(cell, where));
  }
  for (const json& entry : list_at(document, "speed", where)) {
    result.speed.push_back({text_at(entry, "label"), integer_at(entry, "depth"),
                            number_at(entry, "tokens_per_s"), number_at(entry, "ms_p50"),
                            number_at(entry, "peak_rss_bytes")});
  }
  return result;
}

std::string to_string(CellStatus status) {
  for (const auto& [known, name] : kStatuses) {
    if (known == status) return name;
  }
  return "";
}

std::string to_string(CellRole role) {
  for (const auto& [known, name] : kRoles) {
    if (known == role) return name;
  }
  return "";
}

namespace {

nlohmann::ordered_json measure_document(const Measure& measure) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  const auto put = [&](const char* key, const auto& value) {
    if (value) object[key] = *value;
  };
  const auto put_text = [&](const char* key, const std::string& value) {
    if (!value.empty()) object[key] = value;
  };
  put_text("valid_sha256", measure.valid_text);
  put_text("train_sha256", measure.train_text);
  put_text("tokenizer", measure.tokenizer);
  put("context", measure.context);
  put("max_tokens", measure.max_tokens);
  put("tokens", measure.tokens);
  put("bytes", measure.bytes);
  return object;
}

}  // namespace

nlohmann::ordered_json comparison_document(const Comparison& comparison) {
  using Json = nlohmann::ordered_json;
  const auto put = [](Json& object, const char* key, const auto& value) {
    if (value) object[key] = *value;
  };
  // A loss that is not known is written as null: a reader must not take it for 0.
  const auto put_or_null = [](Json& object, const char* key, const std::optional<double>& value) {
    object[key] = value ? Json(*value) : Json();
  };
  Json document = {{"format", kFormat},
                   {"name", comparison.name},
                   {"created", comparison.created},
                   {"machine", comparison.machine},
                   {"corpus", comparison.corpus},
                   {"last", comparison.last},
                   {"target_loss", nullptr},
                   {"cells", Json::array()},
                   {"speed", Json::array()}};
  if (comparison.target_loss) document["target_loss"] = *comparison.target_loss;
  for (const Cell& cell : comparison.cells) {
    Json entry = {{"label", cell.label},
                  {"scheme", cell.scheme},
                  {"role", to_string(cell.role)},
                  {"run", cell.run.string()},
                  {"status", to_string(cell.status)}};
    put(entry, "depth", cell.depth);
    put(entry, "seed", cell.seed);
    put(entry, "lr", cell.lr);
    put(entry, "budget", cell.budget);
    if (!cell.wider_for.empty()) entry["wider_for"] = cell.wider_for;
    put(entry, "loss", cell.loss);
    put(entry, "loss_bits_per_byte", cell.loss_bits);
    put(entry, "spikes", cell.spikes);
    put_or_null(entry, "val_loss", cell.val_loss);
    put_or_null(entry, "bits_per_byte", cell.bits_per_byte);
    put(entry, "parameters", cell.parameters);
    put(entry, "flops_per_token", cell.flops_per_token);
    if (cell.measure != Measure{}) entry["measure"] = measure_document(cell.measure);
    document["cells"].push_back(std::move(entry));
  }
  for (const Speed& speed : comparison.speed) {
    Json entry = {{"label", speed.label}};
    put(entry, "depth", speed.depth);
    put(entry, "tokens_per_s", speed.tokens_per_s);
    put(entry, "ms_p50", speed.ms_p50);
    put(entry, "peak_rss_bytes", speed.peak_rss_bytes);
    document["speed"].push_back(std::move(entry));
  }
  return document;
}

namespace {

// The validation points by tokens; of two at one step, the later.
std::vector<CurvePoint> curve_of(const RunData& run) {
  std::vector<CurvePoint> curve;
  const double tokens_per_step = run.tokens_per_step.value_or(0.0);
  if (tokens_per_step <= 0.0) return curve;
  for (const ValidationPoint& point : run.validation) {
    const double tokens = static_cast<double>(point.step) * tokens_per_step;
    if (!curve.empty() && curve.back().tokens == tokens) curve.pop_back();
    curve.push_back({tokens, point.loss});
  }
  return curve;
}

// The bits per byte of the last evaluations, as a curve of which mean_of_last is taken.
std::vector<CurvePoint> bits_of(const RunData& run) {
  std::vector<CurvePoint> bits;
  for (const ValidationPoint& point : run.validation) {
    const auto step = static_cast<double>(point.step);
    if (!bits.empty() && bits.back().tokens == step) bits.pop_back();
    if (point.bits_per_byte) bits.push_back({step, *point.bits_per_byte});
  }
  return bits;
}

int64_t spikes_of(const RunData& run) {
  std::vector<double> losses;
  losses.reserve(run.train.size());
  for (const TrainPoint& point : run.train) losses.push_back(point.loss);
  return static_cast<int64_t>(find_spikes(losses).size());
}

// optimizer.lr of the run's settings.
std::optional<double> lr_of(const RunSettings& settings) {
  const auto found = settings.find("optimizer.lr");
  if (found == settings.end()) return std::nullopt;
  const std::string& text = found->second;
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

}  // namespace

void take_run(Cell& cell, const RunData& run, int64_t last) {
  cell.status = status_of(run);
  cell.val_loss = run.val_loss;
  cell.bits_per_byte = run.bits_per_byte;
  cell.curve = curve_of(run);
  cell.loss = cell.loss_bits = std::nullopt;
  if (run.val_loss && last > 1) {
    const auto count = static_cast<std::size_t>(last);
    cell.loss = mean_of_last(cell.curve, count);
    cell.loss_bits = mean_of_last(bits_of(run), count);
  }
  if (!run.train.empty()) cell.spikes = spikes_of(run);
  if (const auto lr = lr_of(run.settings)) cell.lr = lr;
  cell.parameters = run.parameters;
  cell.flops_per_token = run.flops_per_token;
  cell.settings = run.settings;
  cell.measure = run.measure;
  cell.tokens_per_s = run.tokens_per_s;
  cell.peak_rss_bytes = run.peak_rss_bytes;
  cell.machine = run.machine;
}

Comparison comparison_of_runs(std::span<const RunData> runs) {
  Comparison result;
  result.is_grid = false;
  const bool by_name = names_tell_apart(runs);
  for (const RunData& run : runs) {
    Cell cell;
    cell.label = by_name ? run.label : run.scheme;
    cell.scheme = run.scheme;
    cell.depth = run.depth;
    cell.seed = run.seed;
    cell.run = run.folder;
    take_run(cell, run);
    result.cells.push_back(std::move(cell));
  }
  return result;
}

}  // namespace wavroute
