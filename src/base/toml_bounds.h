// What a TOML text must not hold before toml++ may see it.
#pragma once

#include <string>
#include <string_view>

namespace wavroute {

// UserError "expected ..., given ..., FILE:LINE" for a text of more than 1 MiB, for dotted keys of
// more than eight parts, and for a table header without a key. The library bounds the nesting of
// values, but neither of the others: "a.a.a...=1" makes tables in each other until the stack ends,
// and "[[[" or "[." is undefined behaviour in a release build (TOML_ASSERT_ASSUME in parse_key).
void check_toml_bounds(std::string_view text, const std::string& file);

}  // namespace wavroute
