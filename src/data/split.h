// A split of a corpus before it is tokenised, and how one file becomes two splits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "data/token_file.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// Either text or, where `is_tokens`, the tokens of a token file.
struct Split {
  std::string name;                   // in errors: a path, or the split of torch-source
  std::shared_ptr<const void> owner;  // keeps `text` alive
  std::string_view text;
  uint64_t offset = 0;  // where `text` begins in its file
  bool is_tokens = false;
  TokenView tokens;
};

[[nodiscard]] Split text_split(std::string name, std::string text);

// Maps a text file, or a token file (its tokens are still to be opened, with a tokenizer).
// UserError where the file is missing or empty.
[[nodiscard]] Split open_split(const std::filesystem::path& path);

// Parts one file into training and validation: the last 5 %, but at least `sequence` tokens, from
// the beginning of a line where one is near. UserError where there are fewer than two sequences.
[[nodiscard]] std::pair<Split, Split> part_split(const Split& whole, int64_t sequence,
                                                 const Tokenizer& tokenizer);

// Keeps the first max_bytes bytes of text, to a whole character or token.
void limit_split(Split& split, int64_t max_bytes, const Tokenizer& tokenizer);

// The bytes of text that `tokens` stand for.
[[nodiscard]] int64_t text_bytes(const TokenView& tokens, const Tokenizer& tokenizer);

}  // namespace wavroute
