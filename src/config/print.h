// Configurations as text, and what differs between two.
#pragma once

#include <string>
#include <vector>

#include "config/load.h"
#include "wavroute/config.h"

namespace wavroute {

// One key with its value.
struct Setting {
  std::string section;  // empty: above all sections
  std::string key;
  std::string value;  // a TOML literal, but for tables also a JSON value; doubles keep their bits
};

// Every key in the order of the file, with the options of [residual] that were given. A variant is
// one setting, "compare.variant.LABEL", its value the list of its overrides.
[[nodiscard]] std::vector<Setting> settings(const Config& config);

// A complete file that loads (strictly) to an equal Config.
[[nodiscard]] std::string to_toml(const Config& config);

// Every `key = value  # origin`; itself a valid file. With a catalog, the options of the scheme
// that were not given are listed too, with the scheme's defaults.
[[nodiscard]] std::string show_config(const LoadedConfig& loaded,
                                      const SchemeCatalog& catalog = {});

// The dotted keys whose values differ, in the order of the file; empty where the two are equal.
[[nodiscard]] std::vector<std::string> changed_keys(const Config& a, const Config& b);

}  // namespace wavroute
