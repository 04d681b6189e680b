// Values as TOML source text. What is written here is also valid JSON, but for tables.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/document.h"
#include "wavroute/options.h"

namespace wavroute {

[[nodiscard]] std::string literal(bool value);
[[nodiscard]] std::string literal(int64_t value);
std::string literal(const char*) = delete;  // would become a bool
// The shortest text that reads back to the same bits; always with a point or an exponent.
[[nodiscard]] std::string literal(double value);
[[nodiscard]] std::string literal(const std::string& value);
// "auto" where there is none.
[[nodiscard]] std::string literal(const std::optional<double>& value);
[[nodiscard]] std::string literal(const std::optional<int64_t>& value);
// A plain value, a list of them or an inline table; a date is a UserError.
[[nodiscard]] std::string literal(const Node& node);
[[nodiscard]] std::string literal(const OptionValue& value);

template <typename Item>
[[nodiscard]] std::string literal(const std::vector<Item>& values) {
  std::string text = "[";
  for (const Item& value : values) text += (text.size() > 1 ? ", " : "") + literal(value);
  return text + "]";
}

}  // namespace wavroute
