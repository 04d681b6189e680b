// Tokenizers that a model may be given, as the text of a tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>

#include "formats/foreign_model.h"

namespace wavroute {

// What load_tokenizer (wavroute/tokenizer.h) takes, or llama2.c's tokenizer.bin; a GGUF's and
// llama2.c's is of `vocab_size` tokens.
[[nodiscard]] ForeignTokenizer read_tokenizer_file(const std::filesystem::path& path,
                                                   int64_t vocab_size);

// llama2.c's: the length of the longest token, then a score and a text for each of `vocab_size`.
[[nodiscard]] ForeignTokenizer read_llama2c_tokenizer(const std::filesystem::path& path,
                                                      int64_t vocab_size);

}  // namespace wavroute
