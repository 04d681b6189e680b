// The keys of a Llama's config.json besides its sizes: which values don't change its function.
#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>

namespace wavroute {

// A key that could change the function, or that has a meaning: every other value is refused.
struct LlamaRule {
  const char* key;
  bool (*accepts)(const nlohmann::json&);
  const char* expected;
};

[[nodiscard]] std::span<const LlamaRule> llama_rules();

// Keys whose values have no effect on the logits of a language model.
[[nodiscard]] bool is_neutral_llama_key(std::string_view key);

[[nodiscard]] bool is_word_of(const nlohmann::json& value,
                              std::initializer_list<std::string_view> words);
[[nodiscard]] bool is_empty_or_null(const nlohmann::json& value);
[[nodiscard]] bool is_one_or_null(const nlohmann::json& value);

}  // namespace wavroute
