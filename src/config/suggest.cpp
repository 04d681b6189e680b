#include "config/suggest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

#include "base/nearest.h"

namespace wavroute {

std::optional<std::string> near_enough(std::string_view word,
                                       std::span<const std::string> candidates) {
  std::string lower(word);  // our own names are all in lower case
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::string best = nearest(lower, candidates);
  const size_t limit = 1 + word.size() / 4;  // a more distant word would only confuse
  if (candidates.empty() || edit_distance(lower, best) > limit) return std::nullopt;
  return best;
}

std::string suggestion(std::string_view word, std::span<const std::string> candidates,
                       std::string_view what) {
  if (const auto best = near_enough(word, candidates)) {
    return fmt::format("did you mean '{}'?", *best);
  }
  return fmt::format("{}: {}", what, fmt::join(candidates, ", "));
}

}  // namespace wavroute
