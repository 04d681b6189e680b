// One shard of prepared text: documents in the order of a seed, as a token file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/thread_pool.h"
#include "data/manifest.h"
#include "data/spill.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// The documents of a shard in memory, each text once however often it was added.
class ShardText {
 public:
  explicit ShardText(bool dedup) : dedup_(dedup) {}

  void add(const DocumentHash& hash, std::string_view text);
  // Documents that equal an earlier one; with `dedup` they are left out.
  [[nodiscard]] int64_t duplicates() const noexcept { return duplicates_; }
  [[nodiscard]] bool is_empty() const noexcept { return order_.empty(); }
  // The documents in an order that depends on how they were added, `seed` and `name` alone.
  [[nodiscard]] std::vector<std::string_view> shuffled(uint64_t seed, std::string_view name) const;

 private:
  struct Hasher {
    size_t operator()(const DocumentHash& hash) const noexcept { return hash.low; }
  };
  [[nodiscard]] std::string_view keep(std::string_view text);

  bool dedup_;
  int64_t duplicates_ = 0;
  std::vector<std::unique_ptr<char[]>> blocks_;  // of memory for the texts
  size_t room_ = 0;                              // of the last block
  char* free_ = nullptr;
  std::vector<std::string_view> texts_;
  std::vector<uint32_t> order_;  // a document each: its text's place in texts_
  std::unordered_map<DocumentHash, uint32_t, Hasher> places_;
};

// Writes the tokens of `documents`, each followed by the tokenizer's end token where it has one.
// The threads of `pool` change no byte. Returns what the manifest says of the file, but its name
// and split; throws ReadingStopped, without a file.
[[nodiscard]] ManifestFile write_shard(const std::filesystem::path& path,
                                       const std::vector<std::string_view>& documents,
                                       const Tokenizer& tokenizer, ThreadPool& pool,
                                       const StopCheck& is_stopped = {});

}  // namespace wavroute
