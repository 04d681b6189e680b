// The table that a comparison ends with: one row per depth and label.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "report/comparison.h"
#include "report/statistics.h"

namespace wavroute {

struct TableRow {
  std::string label;
  std::string scheme;
  std::optional<int64_t> depth;
  std::size_t seeds = 0;     // cells of this row
  std::size_t finished = 0;  // of them
  std::size_t diverged = 0, failed = 0, pending = 0;
  std::optional<double> loss;                  // mean over the finished seeds, nats per token
  std::optional<double> bits_per_byte;         // likewise
  bool is_reference = false;                   // the first label at this depth
  std::optional<PairedDifference> difference;  // loss minus the reference's, over common seeds
  std::optional<double> tokens_per_s;
  std::optional<double> speed_ratio;  // to the reference's tokens per second
  std::optional<double> peak_rss_bytes;
  std::optional<double> parameters;
  std::optional<double> flops_per_token;
};

struct Table {
  std::vector<TableRow> rows;  // by depth, ascending; inside a depth in the order of the cells
  std::string reference;       // the label of the first row; differences are to this scheme
  std::string note;            // what the interval is, and what the speed is
};

[[nodiscard]] Table make_table(const Comparison& comparison);

// One column of the printed table: its heading, and one text per row.
struct TableColumn {
  std::string name;  // a short key: "loss", "difference", ...
  std::string heading;
  bool numeric = true;  // aligned to the right
  std::vector<std::string> cells;
};

// The columns that at least one row has something to say in.
[[nodiscard]] std::vector<TableColumn> table_columns(const Table& table);

// For a terminal: aligned columns in UTF-8, the note below; ends with a newline.
[[nodiscard]] std::string terminal_table(const Table& table);
// For a Markdown document, likewise.
[[nodiscard]] std::string markdown_table(const Table& table);

// "12,345", "1.25 GiB", "10.5M", "-0.0123 ± 0.0040" (a real minus sign).
[[nodiscard]] std::string format_count(double value);
[[nodiscard]] std::string format_bytes(double bytes);
[[nodiscard]] std::string format_magnitude(double value);
[[nodiscard]] std::string format_difference(const PairedDifference& difference);

}  // namespace wavroute
