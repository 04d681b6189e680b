// Two byte-pair encodings, of the kinds of GPT-2 and Llama 2, whose ids one can tell by hand.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/data/bpe_json.h"
#include "wavroute/tokenizer.h"

namespace wavroute::testing {

inline const std::string kSpace = "\xC4\xA0";     // how a byte-level vocabulary spells a space
inline const std::string kMark = "\xE2\x96\x81";  // U+2581
inline const std::string kFffd = "\xEF\xBF\xBD";

inline std::shared_ptr<const Tokenizer> read(const nlohmann::json& json) {
  return tokenizer_from_json(json.dump(), "t.json");
}

// " the" 258, "the" 259.
inline nlohmann::json english() {
  return byte_level_tokenizer({"h e", kSpace + " t", kSpace + "t he", "t he"});
}
// Ids from 258 on: U+2581, a, b, U+2581a, ab.
inline nlohmann::json llama2() {
  return llama2_tokenizer({kMark, "a", "b", kMark + "a", "ab"}, {kMark + " a", "a b"});
}

}  // namespace wavroute::testing
