// One `section.key = value`, wherever it was written.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/document.h"
#include "config/fields.h"

namespace wavroute {

// Where a value was written.
struct Place {
  std::string origin = "default";  // for the origin column: "base.toml:12", "--set"
  std::string where = "default";   // for messages: "base.toml:12", "--set train.steps=x"
  // What a relative path is relative to; none inside a preset, which has no folder.
  std::optional<std::filesystem::path> folder = {};

  // The command line has no lines to point at.
  [[nodiscard]] bool is_command_line() const { return origin == "--set"; }
};

struct Assignment {
  std::string section;
  std::string key;
  Node value;
  Place place;

  [[nodiscard]] std::string dotted_key() const { return dotted(section, key); }
  // "for 'steps' in [train], base.toml:12": the end of every message about this value.
  [[nodiscard]] std::string about() const;
};

// All assignments of a document, in its order. `place` is the file; each assignment gets its line.
// An unknown section is a UserError; unknown keys are found when they are applied.
[[nodiscard]] std::vector<Assignment> assignments_of(const Node& document, const Place& place);

// "section.key=value", as after --set; `prefix` ("--set ") begins the place in messages.
[[nodiscard]] Assignment parse_override(const std::string& text, const std::string& prefix,
                                        const std::string& origin);

// Writes the value into `config`: strict about key, type, range and choices; paths become absolute.
// Not for the options of [residual] and not for compare.variant.
void assign(Config& config, const Assignment& assignment);

}  // namespace wavroute
