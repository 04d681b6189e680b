// The table that a comparison ends with: one row for each configuration, over its seeds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/comparison.h"
#include "report/decision.h"
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

  CellRole role = CellRole::kScheme;
  std::optional<double> budget;        // of kBudget
  std::optional<double> lr;            // of all its cells
  std::vector<std::string> wider_for;  // of a wider baseline: labels whose parameters it has
  int64_t spikes = 0;                  // of the training losses of all its seeds
  // What the difference is worth; method.md section 12 defines each. The first is one for a depth.
  std::optional<double> noise_floor;      // nats per token
  std::optional<double> p_holm;           // of all differences of the table
  std::optional<double> parameter_share;  // of the reference's, that this row has more
  std::optional<double> target_loss;      // that the next two are about
  std::optional<double> tokens_to_target;
  std::optional<double> seconds_to_target;
  std::optional<double> equal_loss_compute;  // of the reference's: what its loss would cost it
  std::string equal_loss_why;                // there is none
  bool is_extrapolated = false;              // it lies beyond the largest budget
  std::optional<double> effective_speedup;

  // Whether the difference is one for all comparisons of the table together.
  [[nodiscard]] bool is_shown() const { return p_holm && *p_holm < 0.05; }
};

// How the learning rate of a row was found.
struct RateChoice {
  std::string label;
  std::optional<int64_t> depth;
  double lr = 0.0;
  std::vector<double> tried;  // ascending, lr among them
  bool on_own_seed = false;   // the row's loss is of the seed on which it was chosen

  // -1 and 1: the lowest or the highest that was tried, so that one beyond it may be better.
  [[nodiscard]] int end_of_grid() const;
};

// Of how many pairs of rows the order at one depth is that at the deepest.
struct DepthDecision {
  int64_t depth = 0, deepest = 0;
  DecisionAccuracy accuracy;
};

struct Table {
  // First those that are compared: by depth, ascending; inside a depth in the order of the cells.
  // Behind them, in the same order, learning rates and budgets that were tried.
  std::vector<TableRow> rows;
  std::size_t compared = 0;              // of them
  std::vector<std::size_t> row_of_cell;  // beside the comparison's cells
  std::string reference;          // the label of the first row; differences are to this scheme
  std::string note;               // explains the interval and the speed
  std::vector<RateChoice> rates;  // of each row, where several were tried
  std::vector<DepthDecision> decisions;  // of each depth but the deepest
  std::size_t comparisons = 0;           // p-values that were adjusted together

  [[nodiscard]] std::span<const TableRow> compared_rows() const {
    return std::span(rows).first(compared);
  }
};

// Rows depend on what was run (see changes_results), not on its name: cells with the same label but
// different configurations are separate rows, whose labels name the keys that differ. Of several
// cells with one configuration and one seed, the first finished one counts.
[[nodiscard]] Table make_table(const Comparison& comparison);

// The rows as compare.json and --json give them, and what else follows from the table:
// "decision_accuracy", "learning_rates".
[[nodiscard]] nlohmann::ordered_json table_rows(const Table& table);
[[nodiscard]] nlohmann::ordered_json table_decisions(const Table& table);
[[nodiscard]] nlohmann::ordered_json table_rates(const Table& table);

// "optimizer.lr=0.003, train.steps=100 and 2 more"
[[nodiscard]] std::string keys_text(const std::vector<RowKey>& keys);

// One column of the printed table: its heading, and one text per row.
struct TableColumn {
  std::string name;  // a short key: "loss", "difference", ...
  std::string heading;
  bool numeric = true;  // aligned to the right
  std::vector<std::string> cells;
};

// The columns in which at least one of the compared rows has a value; a text for each of these.
[[nodiscard]] std::vector<TableColumn> table_columns(const Table& table);

// For a terminal: aligned columns in UTF-8, the note below; ends with a newline.
[[nodiscard]] std::string terminal_table(const Table& table);
// For a Markdown document, likewise.
[[nodiscard]] std::string markdown_table(const Table& table);

// The text with newlines instead of spaces where a line would have more columns than `width`.
[[nodiscard]] std::string wrapped(const std::string& text, std::size_t width);

// "0.023", "< 0.001"
[[nodiscard]] std::string format_p(double p);

// "-0.0123 ± 0.0040" (a real minus sign).
[[nodiscard]] std::string format_difference(const PairedDifference& difference);

}  // namespace wavroute
