// The tokenizers behind tokenizer.h: each recognises its own tokenizer.json by its structure,
// because the `tokenizers` library refuses a file with keys that it does not know.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "wavroute/tokenizer.h"

namespace wavroute {

// Null where `json` describes another tokenizer.
[[nodiscard]] std::shared_ptr<const Tokenizer> bytes_tokenizer_from_json(
    const nlohmann::json& json);
[[nodiscard]] std::shared_ptr<const Tokenizer> chars_tokenizer_from_json(
    const nlohmann::json& json);

// The parts that both files share, with `pre_tokenizer`, `decoder` and `model` filled in.
[[nodiscard]] std::string tokenizer_json_text(const nlohmann::json& pre_tokenizer,
                                              const nlohmann::json& decoder,
                                              const nlohmann::json& model);

// UserError: an id that the vocabulary does not have.
[[noreturn]] void throw_unknown_id(uint32_t id, int64_t vocab_size);

}  // namespace wavroute
