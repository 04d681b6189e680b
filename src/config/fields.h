// The table of all keys: where each is stored in Config, and which values it may have.
// The keys of [residual] other than `scheme` are not here: they belong to the schemes.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "wavroute/config.h"

namespace wavroute {

// Where a key's value is stored. An optional number without a value is "auto".
using Slot = std::variant<bool*, int64_t*, double*, std::string*, std::vector<double>*,
                          std::vector<int64_t>*, std::vector<std::string>*, std::optional<double>*>;

// The numbers that a key accepts; every item of a list must be within it. Never an infinity.
struct Range {
  double low = std::numeric_limits<double>::lowest();
  double high = std::numeric_limits<double>::max();
  bool low_open = false;   // low itself is excluded
  bool high_open = false;  // high itself is excluded
  [[nodiscard]] bool contains(double value) const;
  [[nodiscard]] std::string text() const;  // "an integer >= 1" without the noun: ">= 1"
};

struct Field {
  std::string section;  // empty: a key above all sections
  std::string key;
  Slot (*slot)(Config&);
  Range range = {};
  std::vector<std::string> choices = {};  // the allowed words of a string; empty = any
  bool is_path = false;                   // a file, or the word "torch-source"
};

[[nodiscard]] const std::vector<Field>& fields();
[[nodiscard]] const Field* find_field(std::string_view section, std::string_view key);
// "train.steps"; a key above all sections has no prefix.
[[nodiscard]] std::string dotted(std::string_view section, std::string_view key);
// In the order of the file that to_toml writes, without the part above all sections.
[[nodiscard]] std::vector<std::string> section_names();
[[nodiscard]] std::vector<std::string> keys_of(std::string_view section);

}  // namespace wavroute
