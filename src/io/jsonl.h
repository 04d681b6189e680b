// JSON lines: metrics.jsonl and its like.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "io/file.h"

namespace wavroute {

// Appends JSON objects to a file, one line each. A line is one write(2), so that readers see whole
// lines, even after a kill; if the disk is full, the part of a line that fitted is removed again. A
// number that is not finite is a Failure: JSON has none. A link at `path` is not followed
// (detach_file).
class JsonlWriter {
 public:
  // Drops everything: of a process that writes no files.
  JsonlWriter() = default;
  explicit JsonlWriter(const std::filesystem::path& path);
  void append(const nlohmann::ordered_json& object);
  // Makes all lines durable. Call it before the checkpoint of the same step, so that a resume
  // never misses a line.
  void sync();

 private:
  std::filesystem::path path_;
  Descriptor file_;
};

// One line of such a file.
struct JsonlLine {
  std::string_view text;
  size_t number = 1;     // from 1
  bool is_whole = true;  // false: the last one, without its end: it may have been being written
};

// The lines of `text` but the blank ones.
[[nodiscard]] std::vector<JsonlLine> jsonl_lines(std::string_view text);

// What all training rows of a metrics.jsonl come to, so that a run in several pieces has the
// figures of one. Lines that are no JSON are passed over; nothing comes of a missing file.
struct MetricsTotals {
  double ms = 0.0;
  int64_t steps = 0;
  int64_t peak_bytes = 0;
};
[[nodiscard]] MetricsTotals metrics_totals(const std::filesystem::path& path);

// Removes the lines of `path` whose "step" is beyond `step`, and whatever is no JSON object (a
// torn last line). A missing file is left missing. Atomic.
void cut_metrics(const std::filesystem::path& path, int64_t step);

}  // namespace wavroute
