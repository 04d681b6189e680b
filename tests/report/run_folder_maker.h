// Run folders with hand-made content, in a temporary folder of their own.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tests/temporary_folder.h"

namespace wavroute {

using testing::TemporaryFolder;

inline void write(const std::filesystem::path& file, std::string_view text) {
  testing::put(file, text);
}

// A finished run of four training rows and two evaluations.
inline std::filesystem::path make_run(const std::filesystem::path& folder,
                                      const std::string& label = "wav", int seed = 1) {
  write(folder / "metrics.jsonl",
        R"({"step":1,"tokens":8,"loss":5.5,"tokens_per_s":100,"peak_rss_bytes":1000}
{"step":2,"tokens":16,"loss":4.5,"tokens_per_s":300,"peak_rss_bytes":3000,"val_loss":4.25,"bits_per_byte":6.1}
{"step":3,"tokens":24,"loss":3.5,"tokens_per_s":200,"peak_rss_bytes":2000}
{"step":4,"tokens":32,"loss":3.25,"tokens_per_s":250,"peak_rss_bytes":2000}
{"step":4,"val_loss":3.0,"bits_per_byte":4.3}
)");
  const nlohmann::json summary = {{"scheme", "wav"},      {"label", label},
                                  {"layers", 12},         {"seed", seed},
                                  {"steps", 4},           {"val_loss", 3.0},
                                  {"bits_per_byte", 4.3}, {"tokens_per_s", 240.0},
                                  {"parameters", 1000},   {"peak_rss_bytes", 3000},
                                  {"status", "finished"}};
  write(folder / "summary.json", summary.dump());
  write(folder / "config.toml", "[model]\nlayers = 12\n[residual]\nscheme = \"wav\"\n");
  return folder;
}

}  // namespace wavroute
