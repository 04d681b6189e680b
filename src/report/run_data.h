// What a report knows about one run, read from its folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/json_text.h"
#include "report/run_settings.h"

namespace wavroute {

struct TrainPoint {
  int64_t step = 0;
  double loss = 0.0;  // cross-entropy, nats per token
};

struct ValidationPoint {
  int64_t step = 0;
  double loss = 0.0;                    // cross-entropy, nats per token
  std::optional<double> bits_per_byte;  // of the text
};

// The layers at a step of training, where train.log_layers asked for them. Null for what is not a
// number.
struct LayerPoint {
  int64_t step = 0;
  // Root mean square of what each sublayer reads (the read-out last) and of what it writes; entropy
  // of its router.
  std::vector<std::optional<double>> stream, update, entropy;
};

// The files of a run folder that a report shows. A value that the folder doesn't give is absent.
struct RunData {
  std::filesystem::path folder;
  std::string scheme;  // "unknown" if no file has it
  std::string label;   // the scheme, or the name of a compare variant
  // "finished", "diverged", "running", "stopped", ...; "unfinished" without a summary. A run that
  // ended without a finite loss has "diverged", one that goes on beyond its summary "running", and
  // one that would be "running" but whose folder nobody holds "stopped", whatever the summary says.
  std::string status;
  std::optional<int64_t> depth;  // layers
  std::optional<int64_t> seed;
  std::optional<int64_t> steps;             // planned; of an unfinished run, those so far
  std::vector<TrainPoint> train;            // by step
  std::vector<ValidationPoint> validation;  // by step
  std::optional<double> tokens_per_step;    // of a training step
  std::vector<LayerPoint> layers;           // by step
  std::optional<double> val_loss, bits_per_byte;
  std::optional<double> tokens_per_s;  // of the training run
  std::optional<double> peak_rss_bytes, parameters, flops_per_token;
  RunSettings settings;        // of config.toml; without one, those in the summary
  Measure measure;             // what its validation loss was measured on
  std::string machine;         // what its speed was measured on; empty where env.json is missing
  nlohmann::json summary;      // summary.json, or null
  nlohmann::json environment;  // env.json, or null
  nlohmann::json routing;      // routing.json, or null
  std::string config;          // the text of config.toml, or empty
};

// A folder that holds metrics.jsonl or summary.json.
[[nodiscard]] bool is_run_folder(const std::filesystem::path& folder);

// Reads a run folder. A torn last line of metrics.jsonl, a row that was being written, is
// left out. Throws UserError for a folder that is not a run and for a broken file,
// with the file and the line.
[[nodiscard]] RunData read_run(const std::filesystem::path& folder);

// A finite number under that key of a JSON object, or nothing.
[[nodiscard]] std::optional<double> number_at(const nlohmann::json& object, const char* key);
[[nodiscard]] std::optional<int64_t> integer_at(const nlohmann::json& object, const char* key);
// The text under that key, or an empty string.
[[nodiscard]] std::string text_at(const nlohmann::json& object, const char* key);

}  // namespace wavroute
