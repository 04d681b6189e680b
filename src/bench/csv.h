// Files of benchmark rows: one header, rows that are only ever added. Torch-free.
#pragma once

#include <filesystem>
#include <string>

namespace wavroute {

// What a row has besides the result.
struct CsvContext {
  std::string date;     // ISO 8601
  std::string commit;   // of the source that was measured
  std::string machine;  // the processor's name
  int cores = 0;
};

// One cell, quoted if it has a comma, a quote or a newline (RFC 4180).
[[nodiscard]] std::string csv_cell(const std::string& text);

// "date,commit,machine,cores" of a row.
[[nodiscard]] std::string csv_cells(const CsvContext& context);

// Appends `rows` (lines with newlines) to `file`, with the header line if the file is new: one
// write at the end of the file, then fsync. A file whose header lacks the last columns of this one
// is from an earlier version: it is rewritten, with empty cells in its rows.
// Throws UserError if the file can't be opened, or begins with another header; Failure if the
// disk is full.
void append_csv(const std::filesystem::path& file, const std::string& header,
                const std::string& rows);

}  // namespace wavroute
