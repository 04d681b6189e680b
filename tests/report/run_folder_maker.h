// Run folders with hand-made content, in a temporary folder of their own.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace wavroute {

// A folder for one test, removed at its end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::temp_directory_path() /
            (std::string("wavroute_") + test->test_suite_name() + "_" + test->name() + "_" +
             std::to_string(getpid()));
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
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
