#include "config/literal.h"

#include <algorithm>
#include <type_traits>
#include <variant>

#include "wavroute/error.h"

namespace wavroute {
namespace {

// A TOML basic string may hold no raw control character; everything else stands for itself.
std::string escaped(char c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\t':
      return "\\t";
    case '\r':
      return "\\r";
    default:
      break;
  }
  const auto byte = static_cast<unsigned char>(c);
  if (byte < 0x20 || byte == 0x7f) return fmt::format("\\u{:04x}", byte);
  return {c};
}

// A key is written bare where TOML allows it.
std::string key_literal(const std::string& key) {
  const bool is_bare = !key.empty() && std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  return is_bare ? key : literal(key);
}

}  // namespace

std::string literal(bool value) { return value ? "true" : "false"; }

std::string literal(int64_t value) { return fmt::format("{}", value); }

std::string literal(double value) {
  std::string text = fmt::format("{}", value);
  const bool is_float = text.find_first_of(".ein") != std::string::npos;  // 1.5, 1e-08, inf, nan
  return is_float ? text : text + ".0";
}

std::string literal(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) text += escaped(c);
  return text + "\"";
}

std::string literal(const std::optional<double>& value) {
  return value ? literal(*value) : "\"auto\"";
}

std::string literal(const std::optional<int64_t>& value) {
  return value ? literal(*value) : "\"auto\"";
}

std::string literal(const Node& node) {
  if (const Node::Table* table = node.table()) {
    std::string text = "{";
    for (const NodeMember& member : *table) {
      text += fmt::format("{}{} = {}", text.size() > 1 ? ", " : "", key_literal(member.key),
                          literal(member.value));
    }
    return text + "}";
  }
  return std::visit(
      [&](const auto& value) -> std::string {
        using Kind = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<Kind, Node::Table> || std::is_same_v<Kind, Node::Date>) {
          throw expected("a plain value", kind_name(node));
        } else {
          return literal(value);
        }
      },
      node.value);
}

std::string literal(const OptionValue& value) {
  return std::visit([](const auto& plain) { return literal(plain); }, value);
}

}  // namespace wavroute
