// The characters that stand for bytes in a byte-level vocabulary.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace wavroute {

// The printable character for each byte: the byte itself where Latin-1 prints it, else the next
// free code point from U+0100 on (GPT-2's table).
[[nodiscard]] const std::array<std::string, 256>& byte_symbols();

// The bytes that a word of such characters stands for; nothing where it has another character.
[[nodiscard]] std::optional<std::string> bytes_of_symbols(std::string_view word);

}  // namespace wavroute
