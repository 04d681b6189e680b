// Where a preparation stands, so that it goes on after a kill.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/manifest.h"
#include "data/spill.h"

namespace wavroute {

// A source as the user named it, to find out whether it is the same later.
struct KnownSource {
  std::string path;
  int64_t bytes = -1;  // -1: not known (standard input)
  bool operator==(const KnownSource&) const = default;
};

struct PrepareState {
  // What was asked for.
  PrepareSettings settings;
  std::string tokenizer;  // the hash of one that was given; empty for "chars", made from the text
  std::vector<KnownSource> sources;
  bool made_folder = false;  // and not the user

  // What has been read: `finished` sources, and of the next one so many documents.
  std::vector<ManifestSource> finished;
  int64_t documents = 0;
  uint64_t chain =
      0;  // of their hashes, in order: whether a source is the same when it is read again
  uint64_t spill_bytes = 0;
  std::array<int64_t, kSplits> text_bytes{}, text_documents{};  // by split
  int64_t empty = 0;
  int64_t invalid_bytes = 0;
  std::string characters;  // for "chars": each once

  // What has been written, once all is read.
  std::vector<ManifestFile> files;
  std::array<int64_t, kSplits> next_shard{};  // of each split
  int64_t duplicates = 0;

  [[nodiscard]] bool has_read_all() const { return finished.size() == sources.size(); }
  void link(const DocumentHash& hash) noexcept {
    chain = (chain ^ hash.low) * 0x9E3779B97F4A7C15ULL + hash.high;
  }
};

// Atomic.
void write_prepare_state(const std::filesystem::path& folder, const PrepareState& state);
// Nothing where there is none; UserError where it is damaged or a newer version wrote it.
[[nodiscard]] std::optional<PrepareState> read_prepare_state(const std::filesystem::path& folder);

}  // namespace wavroute
