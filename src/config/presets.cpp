#include "config/presets.h"

namespace wavroute {

std::string_view Preset::summary() const {
  const std::string_view line = text.substr(0, text.find('\n'));
  return line.starts_with("# ") ? line.substr(2) : std::string_view();
}

const Preset* find_preset(std::string_view name) {
  if (name.ends_with(".toml")) name.remove_suffix(5);
  for (const Preset& preset : presets()) {
    if (preset.name == name) return &preset;
  }
  return nullptr;
}

}  // namespace wavroute
