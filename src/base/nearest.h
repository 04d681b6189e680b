// "Did you mean": the nearest of a list of names.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace wavroute {

// Levenshtein distance, in bytes.
[[nodiscard]] size_t edit_distance(std::string_view a, std::string_view b);

// The name with the smallest edit distance to `word`, the first of equals; empty for no names.
[[nodiscard]] std::string nearest(std::string_view word, std::span<const std::string> names);

}  // namespace wavroute
