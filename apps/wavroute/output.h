// The standard streams of the command: results go to stdout, everything else to stderr.
#pragma once

#include <string>
#include <string_view>

namespace wavroute::app {

// Call it before anything is opened. A standard stream that is closed is opened on /dev/null, so
// that its number goes to no file of ours (and print() fails); a reader that goes away, or a
// limit on the size of files, is an error, not a signal.
void prepare_streams();

// Writes to stdout. On a terminal, control characters (of names, keys, generated text) are shown
// escaped; files and pipes get every byte. Throws std::system_error where it can't be written.
void print(std::string_view text);
// What print() wrote, out now.
void flush();

// Writes a line to stderr, control characters escaped. Never fails: there is nowhere to say so.
void note(std::string_view line);

// Flushes stdout. Throws std::system_error where anything of what was printed, by whatever means,
// did not arrive.
void finish_output();

// Whether writing to stdout has failed.
[[nodiscard]] bool output_failed();
// Whether nobody reads it any more.
[[nodiscard]] bool reader_is_gone();

}  // namespace wavroute::app
