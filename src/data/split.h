// A split of a corpus before it is tokenised, and how one file becomes two splits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "data/token_file.h"
#include "wavroute/choices.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// Either text or, where `is_tokens`, the tokens of a file of tokens or of a prepared folder.
struct Split {
  std::string name;                   // in errors: a path, or the split of torch-source
  std::shared_ptr<const void> owner;  // keeps `text` alive
  std::string_view text;
  uint64_t offset = 0;  // where `text` begins in its file
  bool is_tokens = false;
  int raw_width = 0;      // of a file of nothing but ids: bytes of each; 0 = one of our token files
  int64_t raw_begin = 0;  // bytes before the ids: llm.c's header
  TokenView tokens;
  std::string sha256;   // where it is known without reading: of a prepared folder
  int64_t bytes = -1;   // likewise, of text
  int64_t unknown = 0;  // characters that `text` came without (data.unknown)
};

[[nodiscard]] Split text_split(std::string name, std::string text);

// Maps a file as data.format says:
//   auto                one of our token files or llm.c's (known by their magic), else text;
//   refuses
//                       binary data
//   text                text; refuses known binary formats
//   bytes               any bytes
//   tokens16, tokens32  nothing but ids of 2 or 4 bytes, little-endian
// Tokens are still to be opened (open_split_tokens). UserError where the file is missing, empty or
// refused.
[[nodiscard]] Split open_split(const std::filesystem::path& path, DataFormat format);

// Fills in the tokens of a split that is_tokens. UserError as open_token_file and open_raw_tokens.
void open_split_tokens(Split& split, const Tokenizer& tokenizer);

// Splits one file into training and validation: the last 5 %, but at least `sequence` tokens, from
// the beginning of a line where one is near. UserError where there are fewer than two sequences.
[[nodiscard]] std::pair<Split, Split> part_split(const Split& whole, int64_t sequence,
                                                 const Tokenizer& tokenizer);

// Keeps the first max_bytes bytes of text, up to a whole character or token.
void limit_split(Split& split, int64_t max_bytes, const Tokenizer& tokenizer);

// Leaves characters out of a text, or replaces them, that the tokenizer doesn't know.
void apply_unknown(Split& split, const Tokenizer& tokenizer, UnknownText choice);

// The bytes of text that `tokens` stand for.
[[nodiscard]] int64_t text_bytes(const TokenView& tokens, const Tokenizer& tokenizer);

}  // namespace wavroute
