// Folders that `data prepare` has made, for training and evaluation.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/manifest.h"
#include "data/token_file.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

struct PreparedText {
  std::filesystem::path folder;
  Manifest manifest;
  std::shared_ptr<const Tokenizer> tokenizer;  // the folder's own
};

// UserError where the folder has no manifest, or a tokenizer that isn't the manifest's.
[[nodiscard]] PreparedText open_prepared(const std::filesystem::path& folder);

struct PreparedSplit {
  TokenView tokens;    // of all shards, in their order, as one sequence
  std::string sha256;  // of the shards' checksums
  int64_t bytes = 0;   // of text
};

// Opens the shards of a split without reading them. UserError where the folder has none of that
// split, or a shard isn't the one that the manifest names.
[[nodiscard]] PreparedSplit open_prepared_split(const PreparedText& text, SplitName split);

}  // namespace wavroute
