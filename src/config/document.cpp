#include "config/document.h"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>

#include "base/toml_bounds.h"
#include "config/literal.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

Node convert(const toml::node& node);

Node::Table convert_table(const toml::table& table) {
  std::vector<std::pair<toml::source_position, NodeMember>> members;
  for (const auto& [key, value] : table) {
    members.emplace_back(key.source().begin, NodeMember{std::string(key.str()), convert(value)});
    // A table made by a dotted key or a header has no line of its own that could be shown.
    members.back().second.value.line = static_cast<int>(key.source().begin.line);
  }
  std::stable_sort(members.begin(), members.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.line, a.first.column) < std::pair(b.first.line, b.first.column);
  });
  Node::Table result;
  for (auto& member : members) result.push_back(std::move(member.second));
  return result;
}

Node convert(const toml::node& node) {
  Node result;
  result.line = static_cast<int>(node.source().begin.line);
  if (const auto* table = node.as_table()) {
    result.value = convert_table(*table);
  } else if (const auto* array = node.as_array()) {
    Node::Array items;
    for (const toml::node& item : *array) items.push_back(convert(item));
    result.value = std::move(items);
  } else if (const auto* boolean = node.as_boolean()) {
    result.value = boolean->get();
  } else if (const auto* integer = node.as_integer()) {
    result.value = integer->get();
  } else if (const auto* number = node.as_floating_point()) {
    result.value = number->get();
  } else if (const auto* text = node.as_string()) {
    result.value = text->get();
  } else {
    result.value = Node::Date{};
  }
  return result;
}

// The value of a document that holds one key alone; throws toml::parse_error, or a UserError where
// the text is beyond the bounds.
Node only_value(const std::string& text) {
  check_toml_bounds("value = " + text, "--set");
  Node document = convert(toml::parse("value = " + text));
  auto& members = std::get<Node::Table>(document.value);
  const bool one_line = text.find('\n') == std::string::npos;
  if (members.size() != 1 || !one_line) return Node{text, 0};
  members.front().value.line = 0;
  return std::move(members.front().value);
}

}  // namespace

std::string_view kind_name(const Node& node) {
  constexpr std::string_view kNames[] = {"a boolean", "an integer", "a float",         "a string",
                                         "a list",    "a table",    "a date or a time"};
  return kNames[node.value.index()];
}

Node parse_document(std::string_view text, const std::string& file) {
  check_toml_bounds(text, file);
  try {
    return convert(toml::parse(text));
  } catch (const toml::parse_error& error) {
    throw expected("TOML", fmt::format("something else ({})", error.description()),
                   fmt::format("{}:{}", file, error.source().begin.line),
                   "strings need quotes: scheme = \"wav\"");
  }
}

Node parse_value(const std::string& text) {
  try {
    return only_value(text);
  } catch (const toml::parse_error&) {
  } catch (const UserError&) {
  }
  try {
    return only_value(literal(text));  // through the parser, so that its UTF-8 check applies
  } catch (const toml::parse_error&) {
    throw expected("a value in UTF-8", "other bytes", "--set");
  }
}

}  // namespace wavroute
