#include "data/prepared.h"

#include <fmt/format.h>

#include <vector>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {

PreparedText open_prepared(const std::filesystem::path& folder) {
  PreparedText text{folder, read_manifest(folder), nullptr};
  const auto file = folder / "tokenizer.json";
  text.tokenizer = load_tokenizer(file);
  if (text.tokenizer->hash() == text.manifest.tokenizer.sha256) return text;
  throw expected(fmt::format("the tokenizer \"{}\" that the text was prepared with",
                             text.manifest.tokenizer.name),
                 "another", fmt::format("in {}", file.string()),
                 "restore the file, or prepare the text again");
}

PreparedSplit open_prepared_split(const PreparedText& text, SplitName split) {
  PreparedSplit opened;
  std::vector<TokenView> shards;
  std::string checksums;
  for (const ManifestFile& file : text.manifest.files) {
    if (file.split != split) continue;
    const auto path = text.folder / file.name;
    shards.push_back(open_recorded_tokens(path, *text.tokenizer, file.sha256));
    if (shards.back().size() != file.counts.tokens) {
      throw expected(fmt::format("{} tokens", file.counts.tokens), shards.back().size(),
                     fmt::format("in {}", path.string()),
                     "the folder's manifest and its files don't belong together: prepare again");
    }
    checksums += file.sha256;
    opened.bytes += file.counts.bytes;
  }
  if (shards.empty()) {
    throw expected(fmt::format("{} shards ({}_*.bin)", to_string(split), to_string(split)), "none",
                   fmt::format("in {}", text.folder.string()),
                   split == SplitName::kValid
                       ? "set data.valid to another text, or prepare again with a larger --valid"
                       : "prepare the text again");
  }
  opened.tokens =
      TokenView(shards, fmt::format("{} ({} split)", text.folder.string(), to_string(split)));
  opened.sha256 = sha256_hex(checksums);
  return opened;
}

}  // namespace wavroute
