// A TOML document as plain values that know their line. Only document.cpp knows the TOML parser.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace wavroute {

struct NodeMember;

// One TOML value. Members of a table are in the order of the file.
struct Node {
  using Array = std::vector<Node>;
  using Table = std::vector<NodeMember>;
  struct Date {};  // dates and times: no key takes one, so only the kind is kept

  std::variant<bool, int64_t, double, std::string, Array, Table, Date> value;
  int line = 0;  // 1-based; 0 where there is no file

  [[nodiscard]] const Table* table() const { return std::get_if<Table>(&value); }
  [[nodiscard]] const Array* array() const { return std::get_if<Array>(&value); }
  [[nodiscard]] const std::string* string() const { return std::get_if<std::string>(&value); }
};

struct NodeMember {
  std::string key;
  Node value;
};

// "an integer", "a string", ...: how messages call the kind of a value.
[[nodiscard]] std::string_view kind_name(const Node& node);

// Parses a whole document. `file` is the name used in the message "..., file:line" of the UserError
// that a syntax error becomes.
[[nodiscard]] Node parse_document(std::string_view text, const std::string& file);

// Parses a value as the command line gives it: TOML, or else the text itself as a string.
// Text that is not UTF-8 is a UserError: no TOML file could hold it.
[[nodiscard]] Node parse_value(const std::string& text);

}  // namespace wavroute
