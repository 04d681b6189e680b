// Text that is tokenised once: the tokens are in a cache folder and are mapped from there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "data/token_file.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// $WAVROUTE_CACHE, else $XDG_CACHE_HOME/wavroute, else ~/.cache/wavroute; empty where none of these
// variables is set, and for WAVROUTE_CACHE=off.
[[nodiscard]] std::filesystem::path cache_folder();

// What names the tokens of this text in the cache.
[[nodiscard]] std::string cache_key(std::string_view text_sha256, const Tokenizer& tokenizer);

// The tokens of `text` (named `name` in errors; `text_sha256` in hexadecimal is the key, together
// with the tokenizer; `offset` is where it begins in its file, for errors). Reuses the cached file
// if its checksum is right and it names this text and tokenizer, else writes it and removes the
// least recently used files beyond $WAVROUTE_CACHE_BYTES (10 GB); safe with other processes at the
// same time, since files appear by rename. Where the cache can't be written, the tokens stay in
// memory. UserError for a character that the tokenizer doesn't know.
[[nodiscard]] TokenView tokenise(std::string_view text, std::string_view text_sha256,
                                 const Tokenizer& tokenizer, std::string_view name,
                                 uint64_t offset = 0);

}  // namespace wavroute
