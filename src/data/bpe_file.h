// Reading the parts of a tokenizer.json whose model is a byte-pair encoding.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/bpe_model.h"

namespace wavroute {

// `json`: the value of "model". UserError, `where` named, for what can't be used: an id twice, an
// id far beyond the number of tokens, a merge whose tokens are not there, dropout, affixes.
[[nodiscard]] BpeVocabulary read_bpe_vocabulary(const nlohmann::json& json,
                                                const std::string& where);

// `json`: the value of "added_tokens". Adds those that the vocabulary lacks to it, under the ids
// that `tokenizers` gives them.
[[nodiscard]] std::vector<AddedToken> read_added_tokens(const nlohmann::json& json,
                                                        BpeVocabulary& vocabulary,
                                                        const std::string& where);

// What a post-processor puts around a text.
struct PromptFrame {
  std::vector<uint32_t> before, after;
};
// `json`: the value of "post_processor".
[[nodiscard]] PromptFrame read_post_processor(const nlohmann::json& json, int64_t vocab_size,
                                              const std::string& where);

// The key of an added token that says it stands behind every document; `tokenizers` ignores it.
inline constexpr const char* kEndOfDocument = "end_of_document";
// The content of the token that has it, if one does.
[[nodiscard]] std::optional<std::string> marked_end(const nlohmann::json& added_tokens,
                                                    const std::string& where);

}  // namespace wavroute
