#include "bench/step_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace wavroute {
namespace {

constexpr const char* kCsvHeader =
    "date,commit,machine,cores,provider,scheme,precision,layers,width,batch,context,ms_p20,ms_p50,"
    "ms_p80,tokens_per_s,peak_rss_bytes,percent_of_peak,first_ms,busy";

std::string csv_row(const CsvContext& context, const StepResult& r) {
  const std::string percent = r.percent_of_peak ? fmt::format("{:.2f}", *r.percent_of_peak) : "";
  return fmt::format("{},{},{},{},{},{},{},{},{:.3f},{:.3f},{:.3f},{:.1f},{},{},{:.3f},{}\n",
                     csv_cells(context), csv_cell(r.provider), csv_cell(r.scheme),
                     csv_cell(r.precision), r.layers, r.width, r.batch, r.context, r.ms_p20,
                     r.ms_p50, r.ms_p80, r.tokens_per_s, r.peak_rss_bytes, percent, r.first_ms,
                     r.busy);
}

// The same step on the quiet machine, or beside the busy processes of `r`.
StepResult quiet(StepResult r) {
  r.busy = 0;
  return r;
}

StepResult beside_busy(StepResult r) {
  r.tokens_per_s *= r.ms_p50 / r.busy_ms_p50;
  if (r.percent_of_peak) *r.percent_of_peak *= r.ms_p50 / r.busy_ms_p50;
  r.ms_p20 = r.busy_ms_p20, r.ms_p50 = r.busy_ms_p50, r.ms_p80 = r.busy_ms_p80;
  return r;
}

nlohmann::ordered_json number_or_null(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

}  // namespace

nlohmann::ordered_json step_json(const StepResult& r) {
  nlohmann::ordered_json json;
  json["label"] = r.label;
  json["scheme"] = r.scheme;
  json["provider"] = r.provider;
  if (!r.ok()) {
    json["error"] = r.error;
    json["hint"] = r.hint;
    return json;
  }
  json["precision"] = r.precision;
  json["layers"] = r.layers;
  json["width"] = r.width;
  json["batch"] = r.batch;
  json["context"] = r.context;
  json["parameters"] = r.parameters;
  json["ms_p20"] = r.ms_p20;
  json["ms_p50"] = r.ms_p50;
  json["ms_p80"] = r.ms_p80;
  json["first_ms"] = r.first_ms;
  json["tokens_per_s"] = r.tokens_per_s;
  json["ratio_to_first"] = number_or_null(r.ratio_to_first);
  json["peak_rss_bytes"] = r.peak_rss_bytes;
  json["flops_per_step"] = number_or_null(r.flops_per_step);
  json["percent_of_peak"] = number_or_null(r.percent_of_peak);
  json["loss"] = r.loss;
  json["busy"] = r.busy;
  if (r.busy > 0) {
    json["busy_ms_p20"] = r.busy_ms_p20;
    json["busy_ms_p50"] = r.busy_ms_p50;
    json["busy_ms_p80"] = r.busy_ms_p80;
    json["busy_ratio"] = r.busy_ratio;
  }
  return json;
}

std::string step_table(std::span<const StepResult> results) {
  size_t scheme_width = 6;
  for (const auto& r : results) scheme_width = std::max(scheme_width, r.scheme.size());
  const bool busy =
      std::ranges::any_of(results, [](const StepResult& r) { return r.ok() && r.busy > 0; });
  std::string table =
      fmt::format("{:<{}}  {:<8}  {:<4}  {:>9}  {:>9}  {:>6}  {:>7}  {:>6}  {:>10}{}\n", "scheme",
                  scheme_width, "provider", "type", "ms/step", "tok/s", "ratio", "GB", "% peak",
                  "first step", busy ? "    busy ms   /quiet" : "");
  for (const auto& r : results) {
    if (!r.ok()) {
      table +=
          fmt::format("{:<{}}  {:<8}  failed: {}\n", r.scheme, scheme_width, r.provider, r.error);
      continue;
    }
    const auto ratio = r.ratio_to_first ? fmt::format("{:.3f}", *r.ratio_to_first) : "-";
    const auto percent = r.percent_of_peak ? fmt::format("{:.1f}", *r.percent_of_peak) : "-";
    const auto beside =
        r.busy > 0 ? fmt::format("  {:>9.1f}  {:>7.2f}", r.busy_ms_p50, r.busy_ratio) : "";
    table += fmt::format(
        "{:<{}}  {:<8}  {:<4}  {:>9.1f}  {:>9.0f}  {:>6}  {:>7.2f}  {:>6}  {:>8.1f} s{}\n",
        r.scheme, scheme_width, r.provider, r.precision, r.ms_p50, r.tokens_per_s, ratio,
        static_cast<double>(r.peak_rss_bytes) / 1e9, percent, r.first_ms / 1e3, beside);
  }
  return table;
}

void append_step_csv(const std::filesystem::path& file, const CsvContext& context,
                     std::span<const StepResult> results) {
  std::string rows;
  for (const auto& result : results) {
    if (!result.ok()) continue;
    rows += csv_row(context, quiet(result));
    if (result.busy > 0) rows += csv_row(context, beside_busy(result));
  }
  append_csv(file, kCsvHeader, rows);
}

}  // namespace wavroute
