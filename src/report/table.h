// The table that a comparison ends with: one row for each configuration, over its seeds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "report/comparison.h"
#include "report/statistics.h"

namespace wavroute {

// A key of the configuration in which the rows of one depth differ.
struct RowKey {
  std::string key;    // dotted
  std::string value;  // as TOML text
};

struct TableRow {
  std::string label;       // no other row of the depth has it
  std::string cell_label;  // of its cells
  std::string scheme;
  std::optional<int64_t> depth;
  RunSettings settings;         // what was run; empty where only the label says it
  Measure measure;              // what its losses were measured on
  bool is_planned = true;       // all of its runs are what the grid planned
  std::vector<RowKey> differs;  // what label, scheme and depth don't say
  std::size_t seeds = 0;        // the different ones of its cells
  std::size_t finished = 0;     // of them
  std::size_t diverged = 0, failed = 0, pending = 0, running = 0, stopped = 0;
  std::size_t duplicates = 0;                  // more cells of a seed; each seed counts once
  std::optional<double> loss;                  // mean over the finished seeds, nats per token
  std::optional<double> bits_per_byte;         // likewise
  bool is_reference = false;                   // the first label at this depth
  std::optional<PairedDifference> difference;  // loss minus the reference's, over common seeds
  std::string not_compared;   // why there is none: "another tokenizer"; may be empty
  bool bits_compare = false;  // if so: whether bits per byte can be compared instead
  std::optional<double> tokens_per_s;
  std::optional<double> speed_ratio;  // to the reference's tokens per second
  std::optional<double> peak_rss_bytes;
  std::string machine;  // what the speed was measured on, if the runs have it
  std::optional<double> parameters;
  std::optional<double> flops_per_token;
};

struct Table {
  std::vector<TableRow> rows;  // by depth, ascending; inside a depth in the order of the cells
  std::vector<std::size_t> row_of_cell;  // beside the comparison's cells
  std::string reference;  // the label of the first row; differences are to this scheme
  std::string note;       // explains the interval and the speed
};

// Rows depend on what was run (see changes_results), not on its name: cells with the same label but
// different configurations are separate rows, whose labels name the keys that differ. Of several
// cells with one configuration and one seed, the first finished one counts.
[[nodiscard]] Table make_table(const Comparison& comparison);

// The rows as compare.json and --json give them.
[[nodiscard]] nlohmann::ordered_json table_rows(const Table& table);

// "optimizer.lr=0.003, train.steps=100 and 2 more"
[[nodiscard]] std::string keys_text(const std::vector<RowKey>& keys);

// One column of the printed table: its heading, and one text per row.
struct TableColumn {
  std::string name;  // a short key: "loss", "difference", ...
  std::string heading;
  bool numeric = true;  // aligned to the right
  std::vector<std::string> cells;
};

// The columns in which at least one row has a value.
[[nodiscard]] std::vector<TableColumn> table_columns(const Table& table);

// For a terminal: aligned columns in UTF-8, the note below; ends with a newline.
[[nodiscard]] std::string terminal_table(const Table& table);
// For a Markdown document, likewise.
[[nodiscard]] std::string markdown_table(const Table& table);

// "-0.0123 ± 0.0040" (a real minus sign).
[[nodiscard]] std::string format_difference(const PairedDifference& difference);

}  // namespace wavroute
