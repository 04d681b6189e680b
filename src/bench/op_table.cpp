#include "bench/op_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace wavroute {
namespace {

constexpr const char* kCsvHeader =
    "date,commit,machine,cores,threads,operator,mode,size,precision,tokens,width,ms_p20,ms_p50,"
    "ms_p80,composed_ms_p50,ratio,gb_per_s,gflop_per_s,percent_of_peak";

std::string csv_row(const CsvContext& context, const OpResult& r) {
  const std::string rate = fmt::format("{:.3f}", r.rate() / 1e9);
  return fmt::format("{},{},{},{},{},{},{},{},{:.4f},{:.4f},{:.4f},{:.4f},{:.3f},{},{},{:.2f}\n",
                     csv_cells(context), r.threads, csv_cell(r.name), csv_cell(r.mode),
                     csv_cell(r.size), csv_cell(r.precision), r.tokens, r.width, r.ms_p20, r.ms_p50,
                     r.ms_p80, r.composed_ms_p50, r.ratio(), r.is_memory_bound() ? rate : "",
                     r.is_memory_bound() ? "" : rate, r.percent_of_peak());
}

}  // namespace

nlohmann::ordered_json op_json(const OpResult& r) {
  nlohmann::ordered_json json;
  json["operator"] = r.name;
  json["mode"] = r.mode;
  json["size"] = r.size;
  json["precision"] = r.precision;
  json["tokens"] = r.tokens;
  json["width"] = r.width;
  json["threads"] = r.threads;
  json["ms_p20"] = r.ms_p20;
  json["ms_p50"] = r.ms_p50;
  json["ms_p80"] = r.ms_p80;
  json["composed_ms_p50"] = r.composed_ms_p50;
  json["ratio"] = r.ratio();
  json["gb_per_s"] = nullptr;
  json["gflop_per_s"] = nullptr;
  json[r.is_memory_bound() ? "gb_per_s" : "gflop_per_s"] = r.rate() / 1e9;
  json["percent_of_peak"] = r.percent_of_peak();
  return json;
}

std::string op_table(std::span<const OpResult> results) {
  size_t name = 8, size = 4;
  for (const auto& r : results) {
    name = std::max(name, r.name.size());
    size = std::max(size, r.size.size());
  }
  std::string table = fmt::format(
      "{:<{}}  {:<8}  {:<{}}  {:<4}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}  {:>6}  {:>7}  {:>6}\n",
      "operator", name, "mode", "size", size, "type", "ms p20", "p50", "p80", "composed", "ratio",
      "GB/s", "GFLOP/s", "% peak");
  for (const auto& r : results) {
    const std::string rate = fmt::format("{:.1f}", r.rate() / 1e9);
    table += fmt::format(
        "{:<{}}  {:<8}  {:<{}}  {:<4}  {:>8.3f}  {:>8.3f}  {:>8.3f}  {:>8.3f}  {:>6.2f}  {:>6}  "
        "{:>7}  {:>6.1f}\n",
        r.name, name, r.mode, r.size, size, r.precision, r.ms_p20, r.ms_p50, r.ms_p80,
        r.composed_ms_p50, r.ratio(), r.is_memory_bound() ? rate : "-",
        r.is_memory_bound() ? "-" : rate, r.percent_of_peak());
  }
  return table;
}

void append_op_csv(const std::filesystem::path& file, const CsvContext& context,
                   std::span<const OpResult> results) {
  std::string rows;
  for (const auto& result : results) rows += csv_row(context, result);
  append_csv(file, kCsvHeader, rows);
}

}  // namespace wavroute
