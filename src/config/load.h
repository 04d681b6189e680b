// Loading configurations: TOML files, shipped presets, `extends`, and --set.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "config/draft.h"
#include "config/scheme_options.h"
#include "wavroute/config.h"

namespace wavroute {

struct LoadedConfig {
  Config config;
  // Dotted key -> where its value comes from: "base.toml:12", "preset demo.toml:3", "--set" or
  // "default". Every key of every section, and the options of [residual] that were given.
  std::map<std::string, std::string> origins;
};

// The text of a file that holds a configuration. UserError for one that is too long to, and for
// what is no regular file.
[[nodiscard]] std::string read_config_text(const std::filesystem::path& path);

// `path_or_preset`: a TOML file, or else the name of a preset ("demo"). `sets`:
// "section.key=value", applied over the file. Strict: every mistake is a UserError with its file
// and line.
[[nodiscard]] LoadedConfig load_config(const std::string& path_or_preset,
                                       std::span<const std::string> sets,
                                       const SchemeCatalog& catalog, ConfigUse use);

// The same for the text of a file without `extends`, such as to_toml writes. `file` names it in
// messages.
[[nodiscard]] Config parse_config(const std::string& text, const std::string& file,
                                  const SchemeCatalog& catalog, ConfigUse use);

// `config` with overrides applied, ready to train: of the [residual] options only those that its
// scheme knows remain. UserError as for --set.
[[nodiscard]] Config with_overrides(const Config& config, std::span<const std::string> overrides,
                                    const SchemeCatalog& catalog);

}  // namespace wavroute
