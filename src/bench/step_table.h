// The results of measure_steps as JSON, as rows of a CSV file, and as a table to read. Torch-free.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "bench/csv.h"
#include "bench/step_bench.h"

namespace wavroute {

// One result with the field names of `wavroute bench step --json`; a quantity that was not
// measured is null. A failed one has "label", "provider", "scheme", "error" and "hint" only.
[[nodiscard]] nlohmann::ordered_json step_json(const StepResult& result);

// Aligned columns with a header, one line per result, each ending in a newline; failures as a
// line of text.
[[nodiscard]] std::string step_table(std::span<const StepResult> results);

// Appends one row per successful result to `file` (csv.h), and where it was also timed beside busy
// processes another one, with their number under "busy".
void append_step_csv(const std::filesystem::path& file, const CsvContext& context,
                     std::span<const StepResult> results);

}  // namespace wavroute
