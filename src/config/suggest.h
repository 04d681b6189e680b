// Hints for misspelt words.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace wavroute {

// The candidate nearest to `word`, if one is near enough to be what was meant; case is ignored.
[[nodiscard]] std::optional<std::string> near_enough(std::string_view word,
                                                     std::span<const std::string> candidates);

// "did you mean 'steps'?", or else "`what`: a, b, c" with all the candidates.
[[nodiscard]] std::string suggestion(std::string_view word, std::span<const std::string> candidates,
                                     std::string_view what);

}  // namespace wavroute
