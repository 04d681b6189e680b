// "Did you mean": the nearest of a list of names.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace wavroute {

// Levenshtein distance, in bytes.
[[nodiscard]] size_t edit_distance(std::string_view a, std::string_view b);

// The name with the smallest edit distance to `word`, the first one on a tie; empty if there are no
// names.
[[nodiscard]] std::string nearest(std::string_view word, std::span<const std::string> names);

}  // namespace wavroute
