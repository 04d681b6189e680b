#include "data/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

// A null object stands for a missing value.
const json& value_of(const json& object, const char* key) {
  static const json kMissing;
  const auto found = object.find(key);
  return found == object.end() ? kMissing : *found;
}

std::string given(const json& value) { return value.is_null() ? "none" : json_excerpt(value); }

}  // namespace

std::string type_of(const json& object, std::string_view part, const std::string& where) {
  if (!object.is_object()) {
    throw expected(fmt::format("an object as {}", part), given(object),
                   fmt::format("in {}", where));
  }
  return text_of(object, "type", where);
}

bool flag_of(const json& object, const char* key, bool fallback, const std::string& where) {
  const json& value = value_of(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) {
    throw expected(fmt::format("true or false as {}", key), given(value),
                   fmt::format("in {}", where));
  }
  return value.get<bool>();
}

std::string text_of(const json& object, const char* key, const std::string& where) {
  const json& value = value_of(object, key);
  if (!value.is_string()) {
    throw expected(fmt::format("a string as {}", key), given(value), fmt::format("in {}", where));
  }
  return value.get<std::string>();
}

const json& list_of(const json& object, const char* key, const std::string& where) {
  const json& value = value_of(object, key);
  if (!value.is_array()) {
    throw expected(fmt::format("a list as {}", key), given(value), fmt::format("in {}", where));
  }
  return value;
}

std::string string_pattern(const json& object, std::string_view part, const std::string& where) {
  const json& pattern = value_of(object, "pattern");
  if (!pattern.is_object() || !pattern.contains("String")) {
    throw expected(fmt::format("a {} of a plain string", part),
                   pattern.is_object() && pattern.contains("Regex")
                       ? "the regular expression " + json_excerpt(pattern["Regex"])
                       : given(pattern),
                   fmt::format("in {}", where),
                   "regular expressions are known in a Split pre-tokenizer alone");
  }
  std::string text = text_of(pattern, "String", where);
  if (text.empty()) {
    throw expected(fmt::format("a {} of a string", part), "an empty one",
                   fmt::format("in {}", where));
  }
  return text;
}

void check_steps(size_t steps, std::string_view part, const std::string& where) {
  constexpr size_t kMost = 16;
  if (steps <= kMost) return;
  throw expected(fmt::format("a {} of at most {} steps", part, kMost), "more",
                 fmt::format("in {}", where));
}

void refuse_kind(std::string_view part, std::string_view known, const std::string& given,
                 const std::string& where) {
  throw expected(fmt::format("a {} of the kind {}", part, known), printable(given),
                 fmt::format("in {}", where),
                 "docs/tokenizers.md lists what can be read; convert the data with another "
                 "tokenizer, or with the library `tokenizers`");
}

bool is_of_form(const json& given, const json& form) {
  if (!form.is_object() || !given.is_object()) return given == form;
  const auto items = given.items();
  return std::all_of(items.begin(), items.end(), [&](const auto& item) {
    const auto found = form.find(item.key());
    return found != form.end() && is_of_form(item.value(), *found);
  });
}

}  // namespace wavroute
