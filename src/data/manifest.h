// manifest.json: what a folder of prepared text holds. It is written last: a folder without one is
// not complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/sources.h"

namespace wavroute {

inline constexpr int64_t kManifestFormat = 1;
inline constexpr const char* kManifestFile = "manifest.json";

struct TextCounts {
  int64_t documents = 0;
  int64_t bytes = 0;  // of text, without what stands between documents
  int64_t tokens = 0;
  TextCounts& operator+=(const TextCounts& other) noexcept;
  bool operator==(const TextCounts&) const = default;
};

struct ManifestSource {
  std::string path;
  std::string sha256;  // of the file as it is stored
  int64_t bytes = 0;   // of that file
  int64_t documents = 0;
};

struct ManifestFile {
  std::string name;  // "train_0000.bin"
  SplitName split = SplitName::kTrain;
  TextCounts counts;
  std::string sha256;  // the checksum at the file's end
};

// What decides the content of the files, besides the sources.
struct PrepareSettings {
  std::string recipe;  // empty: none
  std::string field, separator;
  double valid = 0.05;
  int64_t seed = 1;
  bool dedup = false;
  bool operator==(const PrepareSettings&) const = default;
};

struct ManifestTokenizer {
  std::string name;
  int64_t vocab_size = 0;
  std::string sha256;
  std::optional<int64_t> end_token = {};
};

struct Manifest {
  PrepareSettings settings;
  ManifestTokenizer tokenizer;
  std::vector<ManifestSource> sources;
  std::vector<ManifestFile> files;
  int64_t duplicates = 0;     // documents that an earlier one of their split equals
  int64_t empty = 0;          // documents of nothing but white space, left out
  int64_t invalid_bytes = 0;  // that were no UTF-8

  [[nodiscard]] TextCounts total() const;
  [[nodiscard]] TextCounts total(SplitName split) const;
};

[[nodiscard]] nlohmann::ordered_json to_json(const PrepareSettings& settings);
// `where` names the file. UserError for a key that is missing or of another type.
[[nodiscard]] PrepareSettings settings_from_json(const nlohmann::json& json,
                                                 const std::string& where);
[[nodiscard]] nlohmann::ordered_json to_json(const Manifest& manifest);
// UserError also for a newer format, and for a file's name that isn't "SPLIT_NUMBER.bin": names
// lead to no other folder.
[[nodiscard]] Manifest manifest_from_json(const nlohmann::json& json, const std::string& where);

// The manifest of a folder. UserError with a hint where there is none: no folder of prepared text,
// or a preparation that has not come to its end.
[[nodiscard]] Manifest read_manifest(const std::filesystem::path& folder);

// Where a preparation keeps what isn't complete, inside its folder.
inline constexpr const char* kWorkFolder = ".wavroute-prepare";

}  // namespace wavroute
