// Token files of llm.c: a header of 256 integers of 32 bits (magic, version, count of tokens,
// zeros), then the ids: 16 bits each for GPT-2's tokenizer, 32 bits for Llama 3's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wavroute {

inline constexpr int64_t kLlmcHeaderBytes = 1024;

struct LlmcHeader {
  int width = 2;  // bytes of an id
  int64_t version = 1;
  int64_t tokens = 0;
};

// The header of a file's whole content; nothing where it doesn't begin with one of the magic
// numbers. UserError, naming the file, for another version and for a count that isn't the file's.
[[nodiscard]] std::optional<LlmcHeader> find_llmc_header(std::string_view content,
                                                         const std::string& name);

}  // namespace wavroute
