// Texts as Python sees them: UTF-8 here, counted in characters (code points). All are valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute::chat {

// What str.isspace() and \s of a regular expression take for white space.
[[nodiscard]] bool is_space(uint32_t code_point);
[[nodiscard]] bool is_ascii(std::string_view text);

[[nodiscard]] size_t length(std::string_view text);
[[nodiscard]] std::vector<std::string_view> characters(std::string_view text);

enum class Sides : uint8_t { kLeft = 1, kRight = 2, kBoth = 3 };
// Without white space at these sides.
[[nodiscard]] std::string_view stripped(std::string_view text, Sides sides);
// Without characters of `chars`.
[[nodiscard]] std::string_view stripped(std::string_view text, Sides sides, std::string_view chars);

// At white space, or at every `separator`, which is not empty; at most `most` times from the left,
// negative: everywhere.
[[nodiscard]] std::vector<std::string_view> split(std::string_view text, int64_t most);
[[nodiscard]] std::vector<std::string_view> split(std::string_view text, std::string_view separator,
                                                  int64_t most);
// The first `most` places alone; negative: all. The result has at most `most_bytes`, else it is
// cut off somewhere beyond them.
[[nodiscard]] std::string replaced(std::string_view text, std::string_view old,
                                   std::string_view replacement, int64_t most, size_t most_bytes);

// Of ASCII.
[[nodiscard]] std::string upper(std::string_view text);
[[nodiscard]] std::string lower(std::string_view text);

}  // namespace wavroute::chat
