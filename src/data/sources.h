// The sources of a corpus: which files a user means, and the documents in each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/documents.h"
#include "data/stop_check.h"

namespace wavroute {

enum class SplitName { kTrain, kValid, kTest };
inline constexpr size_t kSplits = 3;
[[nodiscard]] std::string_view to_string(SplitName split) noexcept;

struct SourceFile {
  std::string path;  // or "-", standard input
  DocumentFormat format;
  bool is_listed = false;               // found below a folder, and not named itself
  std::optional<SplitName> split = {};  // where the file's name says it; else each document's hash
  // The source is one text, of which each split has a part: training up to cuts[0], validation up
  // to cuts[1], the rest for the test.
  std::vector<uint64_t> cuts = {};
  std::function<void(std::string_view)> check_whole = {};  // throws where that text is another
};

struct SourceOptions {
  std::string separator = std::string(kEndOfText);
  std::optional<std::string> field = {};  // given: standard input is JSON lines. Else "text"
  uint64_t most_document_bytes = kMostDocumentBytes;
  std::filesystem::path output = {};  // what is made of the sources: no source itself
};

// The form of a file by its name: .jsonl, .ndjson and .json are JSON lines, .parquet is Parquet,
// any other is text; .gz or .zst behind that doesn't count.
[[nodiscard]] DocumentForm form_of(std::string_view name);

// The files that `given` name, in that order: each file, standard input ("-", once), and of a
// folder all files below it, sorted, without hidden ones and the output. UserError for a path that
// isn't there or lies in the output, an empty folder, and a file of a known binary format.
[[nodiscard]] std::vector<SourceFile> list_sources(const std::vector<std::string>& given,
                                                   const SourceOptions& options);

// What was read of a source.
struct SourceSummary {
  std::string sha256;  // of the file as it is stored
  uint64_t stored_bytes = 0;
  uint64_t replaced_bytes = 0;  // no UTF-8 in JSON lines
};

class SourceBytes;

// Reads the documents of one source. `split` is the one that the source names.
class SourceReader {
 public:
  // `python` reads Parquet files. `is_stopped` is asked while the source keeps it waiting.
  SourceReader(const SourceFile& source, std::string python, StopCheck is_stopped = {});
  using Visit = std::function<bool(const SourceDocument&, std::optional<SplitName> split)>;
  // Nothing where `visit` or `is_stopped` ended it. UserError as SourceBytes, DocumentCutter and
  // read_parquet.
  [[nodiscard]] std::optional<SourceSummary> read(const Visit& visit);
  // Of the file as it is stored, so far.
  [[nodiscard]] uint64_t stored_bytes() const;

 private:
  [[nodiscard]] std::optional<SourceSummary> read_all(const Visit& visit);
  [[nodiscard]] bool give_cuts(const SourceDocument& whole, const Visit& visit) const;

  const SourceFile& source_;
  std::string python_;
  StopCheck is_stopped_;
  SourceBytes* bytes_ = nullptr;  // while it is read
};

}  // namespace wavroute
