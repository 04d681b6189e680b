// Strict UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF) and what its characters
// are, by utf8proc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace wavroute {

enum class Utf8State {
  kComplete,   // a whole code point
  kTruncated,  // the text ends inside a code point that is well formed so far
  kInvalid,    // no code point begins with these bytes
};

struct Utf8Step {
  Utf8State state;
  uint32_t code_point;  // where kComplete
  size_t length;        // bytes; of the well-formed part (at least 1) where not kComplete
};

// What begins at text[at]; at < text.size().
[[nodiscard]] Utf8Step utf8_step(std::string_view text, size_t at) noexcept;

// The largest offset <= at where a code point begins (`at` itself, if the text has none nearby).
[[nodiscard]] size_t utf8_boundary(std::string_view text, size_t at) noexcept;

[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

// Appends the UTF-8 form of a valid code point.
void append_utf8(std::string& out, uint32_t code_point);

// The columns that `text` takes on a terminal: two for a wide character, none for one that is
// laid over the one before it.
[[nodiscard]] size_t display_width(std::string_view text) noexcept;

// False for what is obeyed, not shown: control characters, separators of lines and paragraphs, and
// format characters without a width (marks of direction, zero-width spaces, tags). The two joiners
// count as shown: scripts and emoji need them.
[[nodiscard]] bool is_shown(uint32_t code_point) noexcept;

}  // namespace wavroute
