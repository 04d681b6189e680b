// Text of unknown origin (names, keys, paths, what a model generated), made safe for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace wavroute {

// `text` with nothing in it that a terminal would obey: characters that are not shown (is_shown),
// but for line ends and tabs, and bytes that are no UTF-8 become "\x1b", "\u202e" and the like. A
// text without them comes back as it is.
[[nodiscard]] std::string terminal_text(std::string_view text);

// A name from a file, for a message: quoted, on one line, at most 120 bytes of it.
[[nodiscard]] std::string printable(std::string_view name);

}  // namespace wavroute
