// The tokenizer of a GGUF file, from its keys tokenizer.*.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf.h"

namespace wavroute {

struct GgufEnds {
  std::optional<int64_t> bos;
  std::vector<int64_t> eos;   // of a text, of a turn, of a message
  std::string chat_template;  // Jinja; empty: none
};

struct GgufTokenizer {
  GgufEnds ends;
  std::string json;      // the text of a tokenizer.json; empty: the file has no tokenizer
  std::string bos, eos;  // the tokens' texts; empty: none
};

[[nodiscard]] bool is_gguf(const std::filesystem::path& file);

// UserError where an id isn't below vocab_size.
[[nodiscard]] GgufEnds read_gguf_ends(const GgufFile& file, int64_t vocab_size);
// UserError where the tokenizer isn't of vocab_size tokens, or of a kind that isn't known.
[[nodiscard]] GgufTokenizer read_gguf_tokenizer(const GgufFile& file, int64_t vocab_size);
// Of as many tokens as there are.
[[nodiscard]] GgufTokenizer read_gguf_tokenizer(const GgufFile& file);
// UserError: a GGUF file without one.
[[noreturn]] void throw_no_tokenizer(const std::filesystem::path& file);

}  // namespace wavroute
