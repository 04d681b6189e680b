// The content of compare.json: what was compared, and what came out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/run_data.h"

namespace wavroute {

enum class CellStatus { kFinished, kDiverged, kFailed, kPending };

// One trained model of the grid.
struct Cell {
  std::string label;
  std::string scheme;
  std::optional<int64_t> depth;  // layers
  std::optional<int64_t> seed;
  std::filesystem::path run;  // relative to the folder of compare.json; may be empty
  CellStatus status = CellStatus::kPending;
  std::optional<double> val_loss;       // nats per token
  std::optional<double> bits_per_byte;  // of the text
  std::optional<double> parameters;
  std::optional<double> flops_per_token;  // forward and backward
};

// Speed of one label at one depth, from the interleaved measurement.
struct Speed {
  std::string label;
  std::optional<int64_t> depth;
  std::optional<double> tokens_per_s;
  std::optional<double> ms_p50;
  std::optional<double> peak_rss_bytes;
};

struct Comparison {
  std::string name;
  std::string created;
  nlohmann::json machine = nlohmann::json::object();
  nlohmann::json corpus = nlohmann::json::object();
  std::vector<Cell> cells;
  std::vector<Speed> speed;
  bool speed_is_interleaved = true;  // false: the speed of the training runs themselves
  std::string unequal;  // what the runs differ in (steps, text, ...), so that losses don't compare
};

// Reads what COMPARE/compare.json holds; `where` names the file in errors (UserError).
[[nodiscard]] Comparison parse_comparison(const nlohmann::json& document, const std::string& where);
// The other direction: the document of compare.json.
[[nodiscard]] nlohmann::ordered_json comparison_document(const Comparison& comparison);
// "finished", "diverged", "failed", "pending": as compare.json spells it.
[[nodiscard]] std::string to_string(CellStatus status);

// A comparison of runs that were trained on their own: cells in the order given, speed and memory
// as the runs measured them. Runs that can't be told apart by label, depth and seed get the name of
// their folder behind the label.
[[nodiscard]] Comparison comparison_of_runs(std::span<RunData> runs);

}  // namespace wavroute
