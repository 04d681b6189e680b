// Typed access to a scheme's options.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "wavroute/options.h"

namespace wavroute {

// `given` over the defaults of `specs`, numbers converted to the declared type. Throws UserError on
// a name that `specs` doesn't have or a value of another type.
[[nodiscard]] Options with_defaults(const Options& given, const std::vector<OptionSpec>& specs,
                                    const std::string& scheme);

// Options that are known to be complete.
template <typename T>
[[nodiscard]] const T& get(const Options& options, std::string_view name) {
  return std::get<T>(options.at(std::string(name)));
}

[[nodiscard]] inline bool is_auto(const Options& options, const std::string& name) {
  const std::string* word = std::get_if<std::string>(&options.at(name));
  return word != nullptr && *word == "auto";
}

}  // namespace wavroute
