// The shipped configurations, embedded at build time: they work from any folder.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace wavroute {

struct Preset {
  std::string_view name;  // "demo", for configs/demo.toml
  std::string_view text;
  // The first comment line, without its "# ".
  [[nodiscard]] std::string_view summary() const;
};

// In alphabetical order.
[[nodiscard]] std::span<const Preset> presets();
// By "demo" or "demo.toml"; null where there is none.
[[nodiscard]] const Preset* find_preset(std::string_view name);

}  // namespace wavroute
