// From texts to a folder that a training reads: documents, cut, dealt to shards, shuffled,
// tokenised.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/manifest.h"
#include "data/stop_check.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

struct PrepareOptions {
  std::vector<std::string> sources;  // files, folders, "-"
  std::filesystem::path out;
  std::string recipe;                         // recipes.h; empty: none
  std::optional<std::string> tokenizer = {};  // bytes, chars or a path; without: the recipe's
  std::optional<std::string> field = {};      // of JSON lines, column of Parquet
  std::optional<std::string> separator = {};
  double valid = 0.05;
  int64_t seed = 1;
  bool dedup = false;
  bool resume = false;
  int threads = 1;            // change no byte
  std::string python;         // for Parquet
  StopCheck is_stopped = {};  // as on_progress's false, also while a source keeps it waiting

  // Bounds of memory, which tests make small. Those of a shard decide where documents go.
  uint64_t buffer_bytes = uint64_t{32} << 20;   // of documents that wait to be written
  uint64_t shard_bytes = uint64_t{128} << 20;   // of text and its documents' places, about
  uint64_t state_bytes = uint64_t{256} << 20;   // of text that a kill may cost
  uint64_t progress_bytes = uint64_t{1} << 20;  // of text between two calls of on_progress
  uint64_t most_document_bytes = kMostDocumentBytes;
};

struct PrepareProgress {
  enum class Phase { kRead, kWrite } phase = Phase::kRead;
  // Bytes: of sources as they are stored, or of text; those before a break count. total 0: not
  // known.
  uint64_t done = 0, total = 0;
  int64_t documents = 0;
};
// False stops the preparation; it can be resumed.
using OnPrepareProgress = std::function<bool(const PrepareProgress&)>;

// Fills options.out and returns its manifest; nothing where on_progress or is_stopped ended it.
//
// The folder is complete once it has its manifest. Until then everything lies in a hidden folder
// below it, and `resume` goes on from there: the same bytes come of it as without a break. A folder
// that already holds what the options ask for is left as it is.
//
// The same options, seed and sources give the same bytes. A document is for validation where its
// hash says so, whatever the seed: equal documents are on one side.
//
// UserError for anything wrong in the options or the sources, and where the folder holds something
// else or a preparation that isn't to be resumed. After one, a preparation that was not resumed
// leaves nothing behind; after any other error it can be resumed.
[[nodiscard]] std::optional<Manifest> prepare(const PrepareOptions& options,
                                              const OnPrepareProgress& on_progress);

}  // namespace wavroute
