#include "report/comparison.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <tuple>
#include <utility>

#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<CellStatus, const char*>, 4> kStatuses = {{
    {CellStatus::kFinished, "finished"},
    {CellStatus::kDiverged, "diverged"},
    {CellStatus::kFailed, "failed"},
    {CellStatus::kPending, "pending"},
}};

CellStatus parse_status(const std::string& text, const std::string& where) {
  for (const auto& [status, name] : kStatuses) {
    if (text == name) return status;
  }
  throw UserError(fmt::format("expected a status finished, diverged, failed or pending, found "
                              "\"{}\" in {}",
                              text, where),
                  "run the comparison again: wavroute compare keeps what is finished");
}

Cell parse_cell(const json& object, const std::string& where) {
  Cell cell;
  cell.scheme = text_at(object, "scheme");
  cell.label = text_at(object, "label");
  if (cell.label.empty()) cell.label = cell.scheme;
  if (cell.label.empty()) {
    throw UserError(
        fmt::format("expected a cell with a \"label\", found {} in {}",
                    object.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 60),
                    where),
        "run the comparison again: wavroute compare keeps what is finished");
  }
  cell.depth = integer_at(object, "depth");
  cell.seed = integer_at(object, "seed");
  cell.run = text_at(object, "run");
  cell.status = parse_status(text_at(object, "status"), where);
  cell.val_loss = number_at(object, "val_loss");
  cell.bits_per_byte = number_at(object, "bits_per_byte");
  cell.parameters = number_at(object, "parameters");
  cell.flops_per_token = number_at(object, "flops_per_token");
  return cell;
}

// The list under `key`, empty where it is missing.
json list_at(const json& document, const char* key, const std::string& where) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return json::array();
  if (found->is_array()) return *found;
  throw UserError(fmt::format("expected a list \"{}\", found something else in {}", key, where));
}

json object_at(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_object() ? *found : json::object();
}

// A run's own word on how it ended, in the words of a comparison.
CellStatus status_of(const RunData& run) {
  if (run.status == "diverged") return CellStatus::kDiverged;
  if (run.status == "failed") return CellStatus::kFailed;
  return run.status == "finished" ? CellStatus::kFinished : CellStatus::kPending;
}

std::string folder_name(const std::filesystem::path& folder) {
  const auto name = folder.lexically_normal();
  return (name.has_filename() ? name : name.parent_path()).filename().string();
}

// Puts the folder's name (then the whole path) behind labels that would name two runs alike.
void separate_labels(std::span<RunData> runs) {
  for (const bool whole_path : {false, true}) {
    std::map<std::tuple<std::string, int64_t, int64_t>, std::vector<RunData*>> same;
    for (RunData& run : runs) {
      same[{run.label, run.depth.value_or(-1), run.seed.value_or(-1)}].push_back(&run);
    }
    for (const auto& [key, group] : same) {
      if (group.size() < 2) continue;
      for (RunData* run : group) {
        run->label = fmt::format("{} ({})", run->label,
                                 whole_path ? run->folder.string() : folder_name(run->folder));
      }
    }
  }
}

// Names the first of these settings in which the runs differ; empty where they share all that they
// give. Only then does a difference of losses speak of the scheme.
std::string first_unequal_setting(std::span<const RunData> runs) {
  constexpr std::pair<const char*, const char*> kSettings[] = {{"corpus_sha256", "text"},
                                                               {"steps", "number of steps"},
                                                               {"batch", "batch size"},
                                                               {"context", "context length"},
                                                               {"width", "width"}};
  for (const auto& [key, words] : kSettings) {
    json seen;
    for (const RunData& run : runs) {
      if (!run.summary.is_object() || !run.summary.contains(key)) continue;
      const json& value = run.summary.at(key);
      if (!seen.is_null() && seen != value) return words;
      seen = value;
    }
  }
  return {};
}

}  // namespace

Comparison parse_comparison(const json& document, const std::string& where) {
  if (!document.is_object()) {
    throw UserError(fmt::format("expected an object, found something else in {}", where));
  }
  Comparison result;
  result.name = text_at(document, "name");
  result.created = text_at(document, "created");
  result.machine = object_at(document, "machine");
  result.corpus = object_at(document, "corpus");
  for (const json& cell : list_at(document, "cells", where)) {
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

nlohmann::ordered_json comparison_document(const Comparison& comparison) {
  using Json = nlohmann::ordered_json;
  const auto put = [](Json& object, const char* key, const auto& value) {
    if (value) object[key] = *value;
  };
  Json document = {{"name", comparison.name},       {"created", comparison.created},
                   {"machine", comparison.machine}, {"corpus", comparison.corpus},
                   {"cells", Json::array()},        {"speed", Json::array()}};
  for (const Cell& cell : comparison.cells) {
    Json entry = {{"label", cell.label},
                  {"scheme", cell.scheme},
                  {"run", cell.run.string()},
                  {"status", to_string(cell.status)}};
    put(entry, "depth", cell.depth);
    put(entry, "seed", cell.seed);
    put(entry, "val_loss", cell.val_loss);
    put(entry, "bits_per_byte", cell.bits_per_byte);
    put(entry, "parameters", cell.parameters);
    put(entry, "flops_per_token", cell.flops_per_token);
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

Comparison comparison_of_runs(std::span<RunData> runs) {
  separate_labels(runs);
  Comparison result;
  result.speed_is_interleaved = false;
  result.unequal = first_unequal_setting(runs);
  // Speed and memory of a label at a depth: the mean over its runs.
  struct Sum {
    double total = 0.0;
    int count = 0;
    void add(const std::optional<double>& value) {
      if (value) total += *value, ++count;
    }
    [[nodiscard]] std::optional<double> mean() const {
      return count ? std::optional(total / count) : std::nullopt;
    }
  };
  std::vector<std::pair<Sum, Sum>> sums;  // tokens per second, memory: beside result.speed
  for (const RunData& run : runs) {
    const CellStatus status = status_of(run);
    result.cells.push_back({run.label, run.scheme, run.depth, run.seed, run.folder, status,
                            run.val_loss, run.bits_per_byte, run.parameters, run.flops_per_token});
    std::size_t at = 0;
    while (at < result.speed.size() &&
           (result.speed[at].label != run.label || result.speed[at].depth != run.depth)) {
      ++at;
    }
    if (at == result.speed.size()) {
      result.speed.push_back({run.label, run.depth, {}, {}, {}});
      sums.emplace_back();
    }
    sums[at].first.add(run.tokens_per_s);
    sums[at].second.add(run.peak_rss_bytes);
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    result.speed[i].tokens_per_s = sums[i].first.mean();
    result.speed[i].peak_rss_bytes = sums[i].second.mean();
  }
  return result;
}

}  // namespace wavroute
