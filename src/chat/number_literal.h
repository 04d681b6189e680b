// Where a number in a template ends.
#pragma once

#include <cstddef>
#include <string_view>

namespace wavroute::chat {

// The length of a float at the beginning of `text`; 0 where there is none.
[[nodiscard]] size_t float_length(std::string_view text);
// Of an integer, where a digit begins one: without leading zeros, or of zeros alone.
[[nodiscard]] size_t integer_length(std::string_view text);

}  // namespace wavroute::chat
