// What may be sent to a stream.
#pragma once

namespace wavroute {

[[nodiscard]] bool is_terminal(int descriptor);

// Whether escape codes (moving the cursor, erasing a line) may be sent there: a terminal that
// understands them, unless NO_COLOR is set.
[[nodiscard]] bool takes_escape_codes(int descriptor);

}  // namespace wavroute
