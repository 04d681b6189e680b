// The content of compare.json: what was compared, and the results.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/loss_curve.h"
#include "report/run_data.h"
#include "report/run_settings.h"

namespace wavroute {

// What a cell is for.
enum class CellRole {
  kScheme,  // a sample of a scheme or a variant
  kRate,    // a learning rate that was tried on the first seed: in no mean
  kBudget,  // the first row trained for another number of steps: in no mean
};

enum class CellStatus { kFinished, kDiverged, kFailed, kPending, kRunning, kStopped };

// One trained model of the grid.
struct Cell {
  std::string label;
  std::string scheme;
  std::optional<int64_t> depth;  // layers
  std::optional<int64_t> seed;
  std::filesystem::path run;  // relative to the folder of compare.json; may be empty
  CellStatus status = CellStatus::kPending;
  CellRole role = CellRole::kScheme;
  std::optional<double> budget;  // of kBudget: its steps, as a multiple of the others'
  std::optional<double> lr;
  std::vector<std::string> wider_for;   // labels whose parameters a wider baseline matches
  std::optional<double> val_loss;       // the last evaluation's, nats per token
  std::optional<double> bits_per_byte;  // of the text
  std::optional<double> loss;           // the mean of the last evaluations; none: val_loss
  std::optional<double> loss_bits;      // bits per byte, likewise
  std::vector<CurvePoint> curve;        // validation
  std::optional<int64_t> spikes;        // of its training loss
  std::optional<double> parameters;
  std::optional<double> flops_per_token;  // forward and backward
  RunSettings settings;                   // what was run; empty if only the label is known
  Measure measure;                        // what val_loss was measured on
  std::vector<std::string> unplanned;     // keys in which the run is another than the grid's cell
  std::optional<double> tokens_per_s;     // of the training run, on `machine`
  std::optional<double> peak_rss_bytes;
  std::string machine;
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
  int64_t last = 1;                   // evaluations that a cell's loss is the mean of
  std::optional<double> target_loss;  // of tokens to target; none: the reference's loss
  // True: the cells of one grid, their speeds measured in turn. False: runs that were trained on
  // their own, each with the speed of its training.
  bool is_grid = true;
};

// Reads the content of COMPARE/compare.json; `where` names the file in errors (UserError).
[[nodiscard]] Comparison parse_comparison(const nlohmann::json& document, const std::string& where);
// The other direction: the document of compare.json.
[[nodiscard]] nlohmann::ordered_json comparison_document(const Comparison& comparison);
// "finished", "diverged", "failed", "pending", "running", "stopped": as compare.json spells it.
[[nodiscard]] std::string to_string(CellStatus status);

// "scheme", "rate", "budget".
[[nodiscard]] std::string to_string(CellRole role);

// Updates a cell from its run's folder: status, results, and what was run. `last`: evaluations that
// its loss is the mean of.
void take_run(Cell& cell, const RunData& run, int64_t last = 1);

// A comparison of runs that were trained on their own: cells in the order given. A cell's label is
// the run's name where the names tell the configurations apart, else its scheme.
[[nodiscard]] Comparison comparison_of_runs(std::span<const RunData> runs);

}  // namespace wavroute
