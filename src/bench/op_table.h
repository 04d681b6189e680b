// The results of `wavroute bench op` as JSON, as rows of a CSV file, and as a table to read.
// Torch-free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "bench/csv.h"

namespace wavroute {

// One operator in one mode at one size, ours and the composed form timed in turn.
struct OpResult {
  std::string name, mode, size, precision;
  int64_t tokens = 0, width = 0;
  int threads = 0;
  double ms_p20 = 0, ms_p50 = 0, ms_p80 = 0;  // ours
  double composed_ms_p50 = 0;
  double bytes = 0;  // the least traffic; 0: the operator is bound by arithmetic
  double flops = 0;  // of an operator that is bound by arithmetic
  double peak = 0;   // bytes or FLOPs per second that this machine reaches

  [[nodiscard]] double ratio() const { return composed_ms_p50 / ms_p50; }
  [[nodiscard]] bool is_memory_bound() const { return flops == 0; }
  // Bytes or FLOPs per second.
  [[nodiscard]] double rate() const { return (is_memory_bound() ? bytes : flops) / ms_p50 * 1e3; }
  [[nodiscard]] double percent_of_peak() const { return rate() / peak * 100; }
};

// With the field names of `wavroute bench op --json`; one of gb_per_s and gflop_per_s is null.
[[nodiscard]] nlohmann::ordered_json op_json(const OpResult& result);

// Aligned columns with a header, one line per result, each ending in a newline.
[[nodiscard]] std::string op_table(std::span<const OpResult> results);

// Appends one row per result to `file` (csv.h).
void append_op_csv(const std::filesystem::path& file, const CsvContext& context,
                   std::span<const OpResult> results);

}  // namespace wavroute
