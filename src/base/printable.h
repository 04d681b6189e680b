// Text of unknown origin (names, keys, paths, what a model generated), made safe for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace wavroute {

// `text` without anything that a terminal would act on: control characters (C0 but line ends and
// tabs, DEL, C1), characters that change the direction of writing, and bytes that are not UTF-8
// become "\x1b", "\u202e" and the like. A text without them is returned unchanged.
[[nodiscard]] std::string terminal_text(std::string_view text);

// A name from a file, for a message: quoted, on one line, at most 120 bytes of it.
[[nodiscard]] std::string printable(std::string_view name);

}  // namespace wavroute
