// What the readers of the parts of a tokenizer.json share. Each part is an object whose "type"
// says what it is; a kind that is not known, and a value that can't be used, are UserErrors that
// name it.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace wavroute {

// The object's "type". `part` as in "normalizer".
[[nodiscard]] std::string type_of(const nlohmann::json& object, std::string_view part,
                                  const std::string& where);
// `fallback` where the key is missing or null.
[[nodiscard]] bool flag_of(const nlohmann::json& object, const char* key, bool fallback,
                           const std::string& where);
[[nodiscard]] std::string text_of(const nlohmann::json& object, const char* key,
                                  const std::string& where);
// The list under `key`.
[[nodiscard]] const nlohmann::json& list_of(const nlohmann::json& object, const char* key,
                                            const std::string& where);
// The text of {"String": text} under "pattern"; a regular expression is refused.
[[nodiscard]] std::string string_pattern(const nlohmann::json& object, std::string_view part,
                                         const std::string& where);

// UserError where a part has more steps than any tokenizer needs: each may make a text longer, and
// calls the next one.
void check_steps(size_t steps, std::string_view part, const std::string& where);

// `known` as in "NFC, NFD or Sequence".
[[noreturn]] void refuse_kind(std::string_view part, std::string_view known,
                              const std::string& given, const std::string& where);

// Whether every member of `given`, at any depth, is one of `form` and equals it. What is missing
// counts as the same.
[[nodiscard]] bool is_of_form(const nlohmann::json& given, const nlohmann::json& form);

}  // namespace wavroute
