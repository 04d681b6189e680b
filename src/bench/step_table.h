// The results of measure_steps as JSON, as rows of a CSV file, and as a table to read. Torch-free.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "bench/step_bench.h"

namespace wavroute {

// One result with the field names of `wavroute bench step --json`; a quantity that was not
// measured is null. A failed one has "label", "provider", "scheme", "error" and "hint" only.
[[nodiscard]] nlohmann::ordered_json step_json(const StepResult& result);

// Aligned columns with a header, one line per result, each ending in a newline; failures as a
// line of text.
[[nodiscard]] std::string step_table(std::span<const StepResult> results);

// What stands in a CSV row beside the result.
struct StepCsvContext {
  std::string date;     // ISO 8601
  std::string commit;   // of the source that was measured
  std::string machine;  // the processor's name
  int cores = 0;
};

// Appends one row per successful result to `file`, with the header line if the file is new.
// Rows that are there are never rewritten: one write at the end of the file, then fsync.
// Throws UserError if the file can't be opened, or begins with another header; Failure if the
// disk is full.
void append_step_csv(const std::filesystem::path& file, const StepCsvContext& context,
                     std::span<const StepResult> results);

}  // namespace wavroute
