// Values as texts.
#pragma once

#include <string>

#include "chat/value.h"

namespace wavroute::chat {

// str() of Python; nothing for an undefined value.
[[nodiscard]] std::string to_text(const Value& value, Work& work);

// json.dumps() of Python.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool is_indented = false;
  std::string indent;  // of each level, where is_indented
  std::string between = ", ", after_key = ": ";
};
[[nodiscard]] std::string to_json(const Value& value, const JsonStyle& style, Work& work);

}  // namespace wavroute::chat
