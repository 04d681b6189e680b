#include "config/literal.h"

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

std::string literal(const Node& node) {
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
