// Checks the keys of [residual] against the options that the schemes declare.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "config/assignment.h"
#include "wavroute/config.h"

namespace wavroute {

[[nodiscard]] const SchemeOptions* find_scheme(const SchemeCatalog& catalog,
                                               const std::string& scheme);
[[nodiscard]] const OptionSpec* find_option(const SchemeCatalog& catalog, const std::string& scheme,
                                            const std::string& option);

// UserError with the nearest name unless the catalog has the scheme; `about` ends the message.
void require_scheme(const SchemeCatalog& catalog, const std::string& scheme,
                    const std::string& about);

// The value of a [residual] key as it was given; only its kind is checked.
[[nodiscard]] OptionValue plain_option(const Assignment& assignment);

// UserError unless one of `schemes` knows the key: says which scheme it belongs to, or which key is
// the nearest.
void require_option(const SchemeCatalog& catalog, std::span<const std::string> schemes,
                    const std::string& key, const Place& place);

// `value` as the spec's type (an integer becomes a float if needed), its choices checked.
[[nodiscard]] OptionValue fit_option(const OptionValue& value, const OptionSpec& spec,
                                     const std::string& scheme, const Place& place);

// Those of the configuration's [residual] options that `scheme` knows, converted to its types.
[[nodiscard]] Options options_for(const Config& config, const std::string& scheme,
                                  const SchemeCatalog& catalog);

}  // namespace wavroute
