#include "report/run_data.h"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cmath>
#include <string_view>
#include <system_error>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool is_json(std::string_view text) {
  try {
    (void)parse_json(text, "a line");
    return true;
  } catch (const UserError&) {
    return false;
  }
}

json read_json_if_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored) ? read_json(file) : json();
}

// One row of metrics.jsonl: a training row, an evaluation row, or both.
void add_row(RunData& run, const json& row, const std::string& where) {
  const auto step = integer_at(row, "step");
  if (!step) {
    throw UserError(fmt::format("expected an object with a whole number \"step\", found {} in {}",
                                row.dump().substr(0, 60), where),
                    "mend or remove that line");
  }
  if (const auto loss = number_at(row, "loss")) run.train.push_back({*step, *loss});
  if (const auto loss = number_at(row, "val_loss")) {
    run.validation.push_back({*step, *loss, number_at(row, "bits_per_byte")});
  }
}

// Fills the curves; the training rows' speed and memory serve runs without a summary.
void read_metrics(RunData& run, const fs::path& file) {
  const std::string text = read_file(file);
  std::vector<double> speeds;
  std::size_t line = 0;
  for (std::size_t begin = 0; begin < text.size(); ++line) {
    const std::size_t end = text.find('\n', begin);
    const auto row_text = std::string_view(text).substr(begin, end - begin);
    if (end == std::string::npos && !is_json(row_text)) break;  // was being written
    begin = end == std::string::npos ? text.size() : end + 1;
    if (row_text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const json row = parse_json_line(row_text, file.string(), line + 1);
    add_row(run, row, fmt::format("{}:{}", file.string(), line + 1));
    if (const auto speed = number_at(row, "tokens_per_s")) speeds.push_back(*speed);
    if (const auto peak = number_at(row, "peak_rss_bytes")) {
      run.peak_rss_bytes = std::max(run.peak_rss_bytes.value_or(0.0), *peak);
    }
  }
  const auto by_step = [](const auto& a, const auto& b) { return a.step < b.step; };
  std::ranges::stable_sort(run.train, by_step);
  std::ranges::stable_sort(run.validation, by_step);
  if (!speeds.empty()) {
    const auto middle = speeds.begin() + static_cast<std::ptrdiff_t>(speeds.size() / 2);
    std::ranges::nth_element(speeds, middle);
    run.tokens_per_s = *middle;
  }
}

// The config.json of the checkpoint with the highest step, or null.
json newest_checkpoint_config(const fs::path& run) {
  constexpr std::string_view kPrefix = "step_";
  fs::path newest;
  long long newest_step = -1;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", error)) {
    const std::string name = entry.path().filename().string();
    const auto digits = std::string_view(name).substr(std::min(kPrefix.size(), name.size()));
    const bool is_step = name.starts_with(kPrefix) && !digits.empty() && digits.size() < 18 &&
                         digits.find_first_not_of("0123456789") == std::string_view::npos;
    if (!is_step || !fs::exists(entry.path() / "config.json")) continue;
    if (const long long step = std::stoll(std::string(digits)); step > newest_step) {
      newest_step = step;
      newest = entry.path() / "config.json";
    }
  }
  return newest.empty() ? json() : read_json(newest);
}

toml::table parse_config(const RunData& run) {
  try {
    return toml::parse(run.config);
  } catch (const toml::parse_error& error) {
    throw UserError(
        fmt::format("expected TOML in {}:{}, but {}", (run.folder / "config.toml").string(),
                    error.source().begin.line, error.description()),
        "the file is damaged there; a run's config.toml is not meant to be edited");
  }
}

// What the summary says; it is written at the end and wins over anything derived.
void apply_summary(RunData& run) {
  const json& summary = run.summary;
  const auto prefer = [&](std::optional<double>& value, const char* key) {
    if (const auto given = number_at(summary, key)) value = given;
  };
  run.scheme = text_at(summary, "scheme");
  run.label = text_at(summary, "label");
  run.status = text_at(summary, "status");
  run.depth = integer_at(summary, "layers");
  run.seed = integer_at(summary, "seed");
  run.steps = integer_at(summary, "steps");
  prefer(run.val_loss, "val_loss");
  prefer(run.bits_per_byte, "bits_per_byte");
  prefer(run.tokens_per_s, "tokens_per_s");
  prefer(run.peak_rss_bytes, "peak_rss_bytes");
  prefer(run.parameters, "parameters");
  prefer(run.flops_per_token, "flops_per_token");
}

// Fills in what the summary left open, from the configuration and the newest checkpoint.
void fill_gaps(RunData& run) {
  const toml::table config = parse_config(run);
  const auto whole = [&](const char* section, const char* key) {
    return config[section][key].value<int64_t>();
  };
  if (run.scheme.empty()) {
    if (const json checkpoint = newest_checkpoint_config(run.folder); checkpoint.is_object()) {
      run.scheme = text_at(checkpoint.value("residual", json::object()), "scheme");
      if (!run.depth) run.depth = integer_at(checkpoint, "num_hidden_layers");
    }
  }
  if (run.scheme.empty()) run.scheme = config["residual"]["scheme"].value_or(std::string());
  if (run.scheme.empty()) run.scheme = "unknown";
  if (run.label.empty()) run.label = run.scheme;
  if (run.status.empty()) run.status = "unfinished";
  if (!run.depth) run.depth = whole("model", "layers");
  if (!run.seed) run.seed = whole("train", "seed");
  if (!run.steps && !run.train.empty()) run.steps = run.train.back().step;
}

}  // namespace

std::optional<double> number_at(const json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return std::nullopt;
  const double value = found->get<double>();
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::optional<int64_t> integer_at(const json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto found = object.find(key);
  return found == object.end() ? std::nullopt : json_integer(*found);
}

std::string text_at(const json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool is_run_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "metrics.jsonl", ignored) ||
         fs::exists(folder / "summary.json", ignored);
}

RunData read_run(const fs::path& folder) {
  if (!is_run_folder(folder)) {
    throw UserError(fmt::format("expected a run folder (with metrics.jsonl), found none in {}",
                                folder.string()),
                    "give the folder that wavroute train or wavroute compare wrote");
  }
  RunData run;
  run.folder = folder;
  std::error_code ignored;
  if (fs::exists(folder / "metrics.jsonl", ignored)) read_metrics(run, folder / "metrics.jsonl");
  if (!run.validation.empty()) {
    run.val_loss = run.validation.back().loss;
    run.bits_per_byte = run.validation.back().bits_per_byte;
  }
  if (fs::exists(folder / "config.toml", ignored)) run.config = read_file(folder / "config.toml");
  run.summary = read_json_if_there(folder / "summary.json");
  run.environment = read_json_if_there(folder / "env.json");
  run.routing = read_json_if_there(folder / "routing.json");
  apply_summary(run);
  fill_gaps(run);
  return run;
}

}  // namespace wavroute
