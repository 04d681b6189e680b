// The standard streams: nothing else writes to them. Results go to stdout, everything else to
// stderr.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace wavroute {

// Call it before anything is opened. A standard stream that is closed is opened on /dev/null, so
// that its number goes to no file of ours (and print() fails); a reader that goes away, or a
// limit on the size of files, is an error, not a signal.
void prepare_streams();

// Writes a result to stdout. On a terminal, control characters (of names, keys, generated text) are
// shown escaped; files and pipes get every byte. Throws std::system_error where it can't be
// written.
void print(std::string_view text);
// What print() wrote, out now. Throws as it does.
void flush();

// Writes all of `text` and flushes. False where the stream is gone or full (a terminal that was
// closed, a broken pipe, a full disk): what was left of the text is dropped, and the stream's next
// use starts clean. Never throws. A broken pipe still raises SIGPIPE: whoever wants to outlive it
// ignores that signal.
bool print_or_drop(std::FILE* stream, std::string_view text) noexcept;
// A line to stderr in that way, control characters escaped.
void note(std::string_view line);

// Flushes stdout. Throws std::system_error where anything that print() was given did not arrive.
void finish_output();

// Whether print() has failed.
[[nodiscard]] bool output_failed();
// Whether nobody reads stdout any more.
[[nodiscard]] bool reader_is_gone();

}  // namespace wavroute
