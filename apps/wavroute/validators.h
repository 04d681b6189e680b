// Checks of option values, with messages in our words.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>

namespace wavroute::app {

// An integer from `low` to `high`.
[[nodiscard]] CLI::Validator integer_from(int64_t low,
                                          int64_t high = std::numeric_limits<int64_t>::max());

}  // namespace wavroute::app
