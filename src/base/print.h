// Output that costs nothing where nobody reads it any more.
#pragma once

#include <cstdio>
#include <string_view>

namespace wavroute {

// Writes all of `text` and flushes. False where the stream is gone or full (a terminal that was
// closed, a broken pipe, a full disk): what was left of the text is dropped, and the stream's next
// use starts clean. Never throws. A broken pipe still raises SIGPIPE: whoever wants to outlive it
// ignores that signal.
bool print_or_drop(std::FILE* stream, std::string_view text) noexcept;

}  // namespace wavroute
