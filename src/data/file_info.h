// What a file or folder of data holds, for people and programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/sources.h"

namespace wavroute {

struct FileInfoOptions {
  SourceOptions sources;
  std::string tokenizer;  // bytes or a path; empty: the one beside the file, where there is one
  std::string python;     // for Parquet
};

// `kind` is prepared, tokens, llm.c, text, json lines or parquet; the other keys follow from it:
//   all           path
//   prepared      the manifest's keys; ids, text
//   tokens, llm.c version, width (bits), tokens, ids, and where known: tokenizer, text_sha256, text
//   others        bytes (of text), stored_bytes, packing, documents, empty, invalid_bytes, sha256
// `ids` are the first tokens, `text` is what they stand for.
//
// UserError for what `data.format = "auto"` refuses; raw ids are named as such, with their width.
[[nodiscard]] nlohmann::ordered_json file_info(const std::string& path,
                                               const FileInfoOptions& options);
// The same as lines.
[[nodiscard]] std::string file_info_text(const nlohmann::ordered_json& info);

}  // namespace wavroute
