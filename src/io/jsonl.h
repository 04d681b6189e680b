// JSON lines: metrics.jsonl and its like.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "io/file.h"

namespace wavroute {

// Appends JSON objects to a file, one line each. A line is one write(2), so that readers see whole
// lines, even after a kill; if the disk is full, the part of a line that fitted is removed again. A
// number that is not finite is a Failure: JSON has none. A link at `path` is not followed
// (detach_file).
class JsonlWriter {
 public:
  explicit JsonlWriter(const std::filesystem::path& path);
  void append(const nlohmann::ordered_json& object);
  // Makes all lines durable. Call it before the checkpoint of the same step, so that a resume
  // never misses a line.
  void sync();

 private:
  std::filesystem::path path_;
  Descriptor file_;
};

// Removes the lines of `path` whose "step" is beyond `step`, and whatever is not a JSON object (a
// torn last line). A missing file is left missing. Atomic.
void cut_metrics(const std::filesystem::path& path, int64_t step);

}  // namespace wavroute
