#include "report/run_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <system_error>
#include <utility>

#include "config/load.h"
#include "io/checkpoint.h"
#include "io/checkpoint_names.h"
#include "io/file.h"
#include "io/json_text.h"
#include "io/jsonl.h"
#include "io/run_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr JsonLimits kRowLimits = {.depth = 8, .bytes = size_t{1} << 20, .values = 10000};
constexpr int64_t kMostLayers = 1000000;  // of a summary that can be meant

json read_json_if_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored) ? read_json(file) : json();
}

// A number of a row: a null (what JSON has for a NaN) counts as none, another type is an error.
std::optional<double> row_number(const json& row, const char* key, const std::string& where) {
  const auto found = row.find(key);
  if (found != row.end() && !found->is_number() && !found->is_null()) {
    throw expected(fmt::format("a number at {}", key), json_excerpt(*found),
                   fmt::format("in {}", where), "fix or remove that line");
  }
  return number_at(row, key);
}

// What metrics.jsonl gives besides its curves.
struct Metrics {
  bool evaluated = false;    // some row has a validation loss, or null instead
  bool lost_finite = false;  // the last of them is not a finite number
};

// A list of a row's object "layers"; another type than a list is an error, other things than
// numbers in it are none.
std::vector<std::optional<double>> layer_numbers(const json& layers, const char* key,
                                                 const std::string& where) {
  std::vector<std::optional<double>> numbers;
  const auto found = layers.find(key);
  if (found == layers.end()) return numbers;
  if (!found->is_array()) {
    throw expected(fmt::format("a list at layers.{}", key), json_excerpt(*found),
                   fmt::format("in {}", where), "fix or remove that line");
  }
  for (const json& value : *found) {
    const double number = value.is_number() ? value.get<double>() : NAN;
    numbers.push_back(std::isfinite(number) ? std::optional(number) : std::nullopt);
  }
  return numbers;
}

// One row of metrics.jsonl: a training row, an evaluation row, or both; or the layers at a step.
void add_row(RunData& run, Metrics& metrics, const json& row, const std::string& where) {
  const auto step = integer_at(row, "step");
  if (!step || *step < 0) {
    throw expected("an object with a whole number \"step\"", json_excerpt(row),
                   fmt::format("in {}", where), "fix or remove that line");
  }
  if (const auto loss = row_number(row, "loss", where)) run.train.push_back({*step, *loss});
  const auto tokens = row_number(row, "tokens", where);
  if (tokens && *step > 0) run.tokens_per_step = *tokens / static_cast<double>(*step);
  if (const auto layers = row.find("layers"); layers != row.end() && layers->is_object()) {
    run.layers.push_back({*step, layer_numbers(*layers, "stream", where),
                          layer_numbers(*layers, "update", where),
                          layer_numbers(*layers, "entropy", where)});
  }
  const auto val_loss = row_number(row, "val_loss", where);
  const auto bits_per_byte = row_number(row, "bits_per_byte", where);
  if (val_loss) run.validation.push_back({*step, *val_loss, bits_per_byte});
  if (row.contains("val_loss")) metrics = {true, !val_loss.has_value()};
  if (const auto peak = row_number(row, "peak_rss_bytes", where)) {
    run.peak_rss_bytes = std::max(run.peak_rss_bytes.value_or(0.0), *peak);
  }
}

// Fills the curves; the training rows' speed and memory serve runs without a summary.
Metrics read_metrics(RunData& run, const fs::path& file) {
  const std::string text = read_file(file);
  Metrics metrics;
  std::vector<double> speeds;
  for (const JsonlLine& line : jsonl_lines(text)) {
    json row;
    try {
      row = parse_json_line(line.text, file.string(), line.number, kRowLimits);
    } catch (const UserError&) {
      if (!line.is_whole) break;  // was being written
      throw;
    }
    const std::string where = fmt::format("{}:{}", file.string(), line.number);
    add_row(run, metrics, row, where);
    if (const auto speed = row_number(row, "tokens_per_s", where)) speeds.push_back(*speed);
  }
  const auto by_step = [](const auto& a, const auto& b) { return a.step < b.step; };
  std::ranges::stable_sort(run.train, by_step);
  std::ranges::stable_sort(run.validation, by_step);
  std::ranges::stable_sort(run.layers, by_step);
  if (!speeds.empty()) {
    const auto middle = speeds.begin() + static_cast<std::ptrdiff_t>(speeds.size() / 2);
    std::ranges::nth_element(speeds, middle);
    run.tokens_per_s = *middle;
  }
  if (!run.validation.empty() && !metrics.lost_finite) {
    run.val_loss = run.validation.back().loss;
    run.bits_per_byte = run.validation.back().bits_per_byte;
  }
  return metrics;
}

// The config.json of the checkpoint with the highest step that has one, or null.
json newest_checkpoint_config(const fs::path& run) {
  const std::vector<Checkpoint> checkpoints = list_checkpoints(run);
  for (auto newest = checkpoints.rbegin(); newest != checkpoints.rend(); ++newest) {
    const fs::path file = newest->path / kConfigFile;
    if (is_there(file)) return read_json(file);
  }
  return {};
}

// Returns the steps that it plans.
std::optional<int64_t> read_config(RunData& run, const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  run.config = read_config_text(file);
  RunConfig config = read_run_config(run.config, file.string());
  run.settings = std::move(config.settings);
  run.seed = config.seed;
  return config.steps;
}

// The summary's values; it is written at the end and takes precedence over anything derived.
void apply_summary(RunData& run, const Metrics& metrics) {
  const json& summary = run.summary;
  const auto prefer = [&](std::optional<double>& value, const char* key) {
    if (const auto given = number_at(summary, key)) value = given;
  };
  run.scheme = text_at(summary, "scheme");
  run.label = text_at(summary, "label");
  run.status = text_at(summary, "status");
  run.depth = integer_at(summary, "layers");
  if (run.depth && (*run.depth < 0 || *run.depth > kMostLayers)) run.depth.reset();
  if (const auto seed = integer_at(summary, "seed")) run.seed = seed;
  run.steps = integer_at(summary, "steps");
  const bool says_none = summary.is_object() && summary.contains("val_loss");
  const auto loss = number_at(summary, "val_loss");
  if (says_none && !loss) run.val_loss = run.bits_per_byte = std::nullopt;
  prefer(run.val_loss, "val_loss");
  if (run.val_loss) prefer(run.bits_per_byte, "bits_per_byte");
  prefer(run.tokens_per_s, "tokens_per_s");
  prefer(run.peak_rss_bytes, "peak_rss_bytes");
  prefer(run.parameters, "parameters");
  prefer(run.flops_per_token, "flops_per_token");
  // Evaluated without a finite loss: the end of training may have looked fine.
  if (run.status == "finished" && !run.val_loss && metrics.evaluated) run.status = "diverged";
}

std::optional<int64_t> whole_number(const RunSettings& settings, const char* key) {
  const auto found = settings.find(key);
  if (found == settings.end() || found->second.empty() || found->second.size() > 18) return {};
  if (found->second.find_first_not_of("0123456789") != std::string::npos) return {};
  return std::stoll(found->second);
}

std::string setting(const RunSettings& settings, const char* key) {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string() : found->second;
}

// Fills in what the summary lacks, from the configuration and the newest checkpoint.
void fill_gaps(RunData& run) {
  if (run.scheme.empty() && run.config.empty()) {
    if (const json checkpoint = newest_checkpoint_config(run.folder); checkpoint.is_object()) {
      run.scheme = text_at(checkpoint.value("residual", json::object()), "scheme");
      if (!run.depth) run.depth = integer_at(checkpoint, "num_hidden_layers");
    }
  }
  if (run.scheme.empty()) run.scheme = shown_value(setting(run.settings, "residual.scheme"));
  if (run.scheme.empty()) run.scheme = "unknown";
  if (run.label.empty()) run.label = run.scheme;
  if (run.status.empty()) run.status = "unfinished";
  if (!run.depth) run.depth = whole_number(run.settings, "model.layers");
  if (!run.steps && !run.train.empty()) run.steps = run.train.back().step;
}

// The summary of a run that was given more steps stays until its new end. `planned`: by
// config.toml.
void notice_extension(RunData& run, const std::optional<int64_t>& planned) {
  const auto told = integer_at(run.summary, "steps");
  if (run.status != "finished" || !told) return;
  const int64_t reached = run.train.empty() ? 0 : run.train.back().step;
  if (std::max(reached, planned.value_or(0)) > *told) run.status = "running";
}

// Without a config.toml the summary has some of the settings.
void settings_of_summary(RunData& run) {
  constexpr std::pair<const char*, const char*> kNumbers[] = {
      {"layers", "model.layers"},   {"width", "model.width"}, {"heads", "model.heads"},
      {"context", "model.context"}, {"batch", "train.batch"}, {"steps", "train.steps"}};
  for (const auto& [key, name] : kNumbers) {
    if (const auto value = integer_at(run.summary, key)) {
      run.settings[name] = fmt::format("{}", *value);
    }
  }
  for (const auto& [key, name] :
       {std::pair("precision", "train.precision"), std::pair("scheme", "residual.scheme")}) {
    if (auto value = text_at(run.summary, key); !value.empty()) run.settings[name] = value;
  }
  if (!run.settings.empty()) run.settings["name"] = run.label;  // it may stand for other changes
}

// An extended run has the learning rates of its first length, unlike one that was planned so long.
void note_schedule(RunData& run) {
  const auto planned = integer_at(run.summary, kScheduleSteps);
  const auto steps = whole_number(run.settings, "train.steps");
  if (planned && steps && *planned != *steps) {
    run.settings[kScheduleSteps] = fmt::format("{}", *planned);
  }
}

// A tokenizer's file is known by its hash, not by its path.
void name_tokenizer(RunData& run) {
  constexpr size_t kShownDigits = 8;
  const auto found = run.settings.find("data.tokenizer");
  if (found == run.settings.end() || found->second.find('/') == std::string::npos) return;
  const std::string name = text_at(run.summary, "tokenizer");
  const std::string hash = text_at(run.summary, "tokenizer_sha256").substr(0, kShownDigits);
  if (!hash.empty()) found->second = fmt::format("\"{} {}\"", name, hash);
}

void fill_measure(RunData& run) {
  const auto hash = [&](const char* summary, const char* environment) {
    auto text = text_at(run.summary, summary);
    return text.empty() ? text_at(run.environment, environment) : text;
  };
  Measure& measure = run.measure;
  measure.train_text = hash("corpus_sha256", "train_sha256");
  measure.valid_text = hash("corpus_valid_sha256", "valid_sha256");
  identify_texts(run.settings, measure.train_text, measure.valid_text);
  name_tokenizer(run);
  identify_weights(run.settings, text_at(run.summary, "init_sha256"));
  measure.tokenizer = shown_value(setting(run.settings, "data.tokenizer"));
  if (const auto size = integer_at(run.summary, "vocab_size")) {
    measure.tokenizer += fmt::format("/{}", *size);
  }
  measure.context = integer_at(run.summary, "context");
  if (!measure.context) measure.context = whole_number(run.settings, "model.context");
  measure.max_tokens = whole_number(run.settings, "data.eval_tokens");
  measure.tokens = integer_at(run.summary, "val_tokens");
  measure.bytes = integer_at(run.summary, "val_bytes");
}

std::string machine_of(const json& environment) {
  if (!environment.is_object()) return {};
  std::string text;
  for (const char* key : {"cpu", "gpus", "threads", "device"}) {
    text += environment.value(key, json()).dump(-1, ' ', true, json::error_handler_t::replace);
  }
  return text;
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
    throw expected("a run folder (with metrics.jsonl)", "none",
                   fmt::format("in {}", folder.string()),
                   "give the folder that wavroute train or wavroute compare wrote");
  }
  check_run_format(RunPaths{folder});
  RunData run;
  run.folder = folder;
  std::error_code ignored;
  Metrics metrics;
  if (fs::exists(folder / "metrics.jsonl", ignored)) {
    metrics = read_metrics(run, folder / "metrics.jsonl");
  }
  const auto planned = read_config(run, folder / "config.toml");
  run.summary = read_json_if_there(folder / "summary.json");
  run.environment = read_json_if_there(folder / "env.json");
  run.routing = read_json_if_there(folder / "routing.json");
  run.machine = machine_of(run.environment);
  apply_summary(run, metrics);
  fill_gaps(run);
  notice_extension(run, planned);
  // Whoever was killed could not say so.
  if (run.status == "running" && !is_held(folder).value_or(true)) run.status = "stopped";
  if (run.config.empty()) settings_of_summary(run);
  note_schedule(run);
  fill_measure(run);
  return run;
}

}  // namespace wavroute
