#include "train/run_summary.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "io/file.h"
#include "io/json_text.h"
#include "io/jsonl.h"
#include "model/device.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

// An empty object where summary.json is missing, can't be read or is damaged.
nlohmann::json read_summary(const RunPaths& paths) {
  try {
    nlohmann::json summary = read_json(paths.summary());
    if (summary.is_object()) return summary;
  } catch (const Error&) {
  }
  return nlohmann::json::object();
}

std::string status_in(const nlohmann::json& summary) {
  const nlohmann::json status = summary.value("status", nlohmann::json());
  return status.is_string() ? status.get<std::string>() : std::string();
}

}  // namespace

void write_summary(const RunPaths& paths, const Session& session, std::string_view status,
                   const RunFigures& figures) {
  const Config& config = session.config;
  const ModelConfig& m = config.model;
  Json summary = {{"status", status},
                  {"label", config.name},
                  {"scheme", config.residual.scheme},
                  {"layers", m.layers},
                  {"width", m.width},
                  {"heads", m.heads},
                  {"context", m.context},
                  {"batch", config.train.batch},
                  {"precision", to_string(config.train.precision)},
                  {"seed", config.train.seed},
                  {"steps", config.train.steps},
                  {"schedule_steps", figures.schedule_steps},
                  {"parameters", session.model->parameters().count()},
                  {"vocab_size", session.model->spec().vocab_size},
                  {"flops_per_token", session.forecast.flops_per_token},
                  {"corpus", session.corpus.description},
                  {"tokenizer", session.corpus.tokenizer->name()},
                  {"tokenizer_sha256", session.corpus.tokenizer->hash()},
                  {"corpus_sha256", session.corpus.train_sha256},
                  {"corpus_valid_sha256", session.corpus.valid_sha256},
                  {"val_tokens", figures.val_tokens},
                  {"val_bytes", figures.val_bytes}};
  if (!figures.init_sha256.empty()) summary["init_sha256"] = figures.init_sha256;
  if (status != kRunning) {
    const MetricsTotals rows = metrics_totals(paths.metrics());
    summary["peak_rss_bytes"] =
        std::max(peak_memory_bytes(session.model->device()), rows.peak_bytes);
    if (status == kFinished && figures.val_loss) summary["val_loss"] = *figures.val_loss;
    if (status == kFinished && figures.bits_per_byte) {
      summary["bits_per_byte"] = *figures.bits_per_byte;
    }
    if (figures.tokens_per_s) {
      summary["tokens_per_s"] = *figures.tokens_per_s;
    } else if (rows.ms > 0.0) {
      const auto tokens = static_cast<double>(rows.steps * session.tokens_per_step());
      summary["tokens_per_s"] = 1e3 * tokens / rows.ms;
    }
  }
  write_file_atomic(paths.summary(), summary.dump(2) + "\n");
}

std::string summary_status(const RunPaths& paths) { return status_in(read_summary(paths)); }

bool says_finished(const RunPaths& paths, int64_t steps) {
  const nlohmann::json summary = read_summary(paths);
  return status_in(summary) == kFinished && summary.value("steps", nlohmann::json()) == steps;
}

}  // namespace wavroute
