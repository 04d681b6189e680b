// The tokenizers behind tokenizer.h: each recognises its own tokenizer.json by its structure,
// because the `tokenizers` library refuses a file with keys that it does not know.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "io/json_text.h"
#include "wavroute/tokenizer.h"

namespace wavroute {

// Null where `json` describes another tokenizer.
[[nodiscard]] std::shared_ptr<const Tokenizer> bytes_tokenizer_from_json(
    const nlohmann::json& json);
[[nodiscard]] std::shared_ptr<const Tokenizer> chars_tokenizer_from_json(
    const nlohmann::json& json);

// To be raised with every change that gives a text other ids under a byte-pair encoding: tokens
// that are kept from before are then not taken.
inline constexpr int kBpeEncoderVersion = 1;

// A byte-pair encoding; UserError where `json` has a part that is not known. `text`: what `json`
// was read from. `end_token` as in tokenizer_from_json.
[[nodiscard]] std::shared_ptr<const Tokenizer> bpe_tokenizer_from_json(const nlohmann::json& json,
                                                                       std::string_view text,
                                                                       const std::string& where,
                                                                       std::string_view end_token);

// What a tokenizer.json may hold: a vocabulary of a quarter of a million tokens with as many
// merges, each a list of two, fits.
inline constexpr JsonLimits kTokenizerLimits = {.bytes = size_t{64} << 20,
                                                .values = size_t{8} << 20};

// The text of a tokenizer.json with these parts, and with `added_tokens` or none.
[[nodiscard]] std::string tokenizer_json_text(const nlohmann::json& pre_tokenizer,
                                              const nlohmann::json& decoder,
                                              const nlohmann::json& model);
[[nodiscard]] std::string tokenizer_json_text(const nlohmann::json& pre_tokenizer,
                                              const nlohmann::json& decoder,
                                              const nlohmann::json& model,
                                              const nlohmann::json& added_tokens);
// That of a byte-pair encoding with GPT-2's rules. `merges`: strings "a b" or lists of two.
[[nodiscard]] std::string byte_level_json(nlohmann::json vocab, nlohmann::json merges,
                                          const nlohmann::json& added_tokens);

// UserError: an id that the vocabulary does not have.
[[noreturn]] void throw_unknown_id(uint32_t id, int64_t vocab_size);

}  // namespace wavroute
