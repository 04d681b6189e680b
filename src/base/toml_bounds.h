// Checks of a TOML text that come before toml++ parses it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace wavroute {

inline constexpr size_t kMostTomlBytes = size_t{1} << 20;

// UserError "expected ..., given ..., FILE:LINE" for a text of more than kMostTomlBytes, for dotted
// keys of more than eight parts, for a table header without a key, and for a character beyond ASCII
// outside strings and comments or where a line of a string continues after '\'. The library bounds
// the nesting of values, but none of the others: "a.a.a...=1" makes tables in each other until the
// stack ends, "[[[" or "[." is undefined behaviour in a release build (TOML_ASSERT_ASSUME in
// parse_key), and so is a character of U+00A1 to U+0499 (TOML_UNREACHABLE in its test for blanks).
void check_toml_bounds(std::string_view text, const std::string& file);

}  // namespace wavroute
