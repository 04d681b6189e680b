// The layout of a table: columns, and their terminal and Markdown forms.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string_view>

#include "base/numbers.h"
#include "base/printable.h"
#include "base/utf8.h"
#include "report/table.h"

namespace wavroute {
namespace {

constexpr std::string_view kMissing = "–";
constexpr std::size_t kShownLabel = 160;  // bytes

// A label could hold anything; a control character would break a line or steer the terminal.
std::string on_one_line(const std::string& text) {
  std::string result = terminal_text(text);
  for (char& c : result) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  return result;
}

// A label may contain all the keys in which its row differs.
std::string cut(const std::string& text, std::size_t most) {
  return text.size() <= most ? text : text.substr(0, utf8_boundary(text, most)) + "...";
}

std::string padded(const std::string& text, std::size_t width, bool to_the_right) {
  const std::string space(width - std::min(width, display_width(text)), ' ');
  return to_the_right ? space + text : text + space;
}

template <typename Value, typename Format>
std::string or_missing(const std::optional<Value>& value, Format format) {
  return value ? std::invoke(format, *value) : std::string(kMissing);
}

std::string format_loss(double value) { return fmt::format("{:.4f}", value); }

// "3", "2 of 3, 1 diverged", or for a single cell "diverged"; "2, 1 duplicate".
std::string seeds_text(const TableRow& row) {
  std::string text;
  const auto add = [&](std::size_t count, std::string_view word) {
    if (count == 0) return;
    text += row.seeds == 1 ? std::string(word) : fmt::format(", {} {}", count, word);
  };
  if (row.finished == row.seeds) {
    text = fmt::format("{}", row.seeds);
  } else if (row.seeds > 1) {
    text = fmt::format("{} of {}", row.finished, row.seeds);
  }
  add(row.diverged, "diverged");
  add(row.failed, "failed");
  add(row.running, "running");
  add(row.stopped, "stopped");
  add(row.pending, "not finished");
  if (row.finished > 0 && !row.loss) text += ", no validation loss";
  if (row.duplicates > 0) {
    text += fmt::format(", {} duplicate{}", row.duplicates, row.duplicates == 1 ? "" : "s");
  }
  return text;
}

std::string difference_text(const TableRow& row) {
  if (row.is_reference) return "reference";
  if (row.difference) {
    return fmt::format("{} (n={})", format_difference(*row.difference), row.difference->n);
  }
  if (row.not_compared.empty()) return std::string(kMissing);
  return row.not_compared + (row.bits_compare ? ", see bits/byte" : "");
}

// "1.23M, 12.3 s": tokens, and the time where the speed is known.
std::string target_text(const TableRow& row) {
  if (!row.tokens_to_target) return row.target_loss ? "not reached" : std::string(kMissing);
  std::string text = format_magnitude(*row.tokens_to_target);
  if (row.seconds_to_target) {
    constexpr double kMinute = 60.0;
    text += *row.seconds_to_target < kMinute ? fmt::format(", {:.1f} s", *row.seconds_to_target)
                                             : ", " + format_duration(*row.seconds_to_target);
  }
  return text;
}

// "824K +0.4 %"
std::string parameters_text(const TableRow& row) {
  constexpr double kShown = 0.0005;  // of the reference's
  std::string text = or_missing(row.parameters, format_magnitude);
  if (row.parameter_share && std::abs(*row.parameter_share) >= kShown) {
    text += fmt::format(" {}{:.1f} %", *row.parameter_share < 0.0 ? "−" : "+",
                        100.0 * std::abs(*row.parameter_share));
  }
  return text;
}

std::string format_factor(double value) { return fmt::format("{:.2f}", value); }

// A label with keys would be wider than the column below it.
std::string reference_heading(const std::string& label) {
  constexpr std::size_t kMost = 40;  // bytes
  return label.size() <= kMost ? fmt::format("vs {}", label) : "vs reference";
}

std::string escaped_for_markdown(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '|' || c == '\\' || c == '<' || c == '`') result += '\\';
    result += c;
  }
  return result;
}

}  // namespace

std::string wrapped(const std::string& text, std::size_t width) {
  std::string result;
  std::size_t column = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    const std::size_t needed = display_width(word) + (column > 0 ? 1 : 0);
    if (column > 0 && column + needed > width) {
      result += '\n';
      column = 0;
    } else if (column > 0) {
      result += ' ';
    }
    column += column > 0 ? needed : display_width(word);
    result += word;
    begin = end + 1;
  }
  return result;
}

std::string format_p(double p) { return p < 0.001 ? "< 0.001" : fmt::format("{:.3f}", p); }

std::string format_difference(const PairedDifference& difference) {
  std::string text = fmt::format("{:.4f}", std::abs(difference.mean));
  if (text != "0.0000") text.insert(0, difference.mean < 0.0 ? "−" : "+");
  if (difference.half_width) text += fmt::format(" ± {:.4f}", *difference.half_width);
  return text;
}

std::vector<TableColumn> table_columns(const Table& table) {
  using Text = std::function<std::string(const TableRow&)>;
  std::vector<TableColumn> columns;
  const auto add = [&](std::string name, const std::string& heading, bool numeric, const Text& text,
                       const std::function<bool(const TableRow&)>& shown) {
    if (std::ranges::none_of(table.compared_rows(), shown)) return;
    TableColumn column{std::move(name), on_one_line(heading), numeric, {}};
    for (const TableRow& row : table.compared_rows())
      column.cells.push_back(on_one_line(text(row)));
    columns.push_back(std::move(column));
  };
  const auto always = [](const TableRow&) { return true; };
  const bool has_targets = std::ranges::any_of(
      table.compared_rows(), [](const TableRow& r) { return !r.is_reference && r.target_loss; });
  const auto value = [&](const char* name, const char* heading, auto member, auto format) {
    add(
        name, heading, true, [=](const TableRow& r) { return or_missing(r.*member, format); },
        [=](const TableRow& r) { return (r.*member).has_value(); });
  };
  value("depth", "layers", &TableRow::depth, [](int64_t d) { return fmt::format("{}", d); });
  add(
      "label", "scheme", false, [](const TableRow& r) { return cut(r.label, kShownLabel); },
      always);
  add(
      "configuration", "configuration", false,
      [](const TableRow& r) { return keys_text(r.differs); },
      [](const TableRow& r) { return !r.differs.empty(); });
  if (!table.rates.empty()) {
    value("lr", "lr", &TableRow::lr, [](double lr) { return fmt::format("{}", lr); });
  }
  value("loss", "loss", &TableRow::loss, format_loss);
  add("difference", reference_heading(table.reference), true, difference_text,
      [](const TableRow& r) { return r.difference || !r.not_compared.empty(); });
  value("p", "p", &TableRow::p_holm, format_p);
  value("bits_per_byte", "bits/byte", &TableRow::bits_per_byte, format_loss);
  value("tokens_per_s", "tokens/s", &TableRow::tokens_per_s, format_count);
  add(
      "ratio", "ratio", true,
      [](const TableRow& r) {
        return or_missing(r.speed_ratio, [](double v) { return fmt::format("{:.2f}", v); });
      },
      [](const TableRow& r) { return r.speed_ratio.has_value() && !r.is_reference; });
  add("target", "to target", true, target_text,
      [&](const TableRow& r) { return has_targets && r.tokens_to_target.has_value(); });
  add(
      "equal_loss", "equal loss", true,
      [](const TableRow& r) {
        return or_missing(r.equal_loss_compute, format_factor) + (r.is_extrapolated ? "*" : "");
      },
      [](const TableRow& r) { return r.equal_loss_compute.has_value(); });
  value("speedup", "speed-up", &TableRow::effective_speedup, format_factor);
  value("memory", "memory", &TableRow::peak_rss_bytes, format_bytes);
  add("parameters", "parameters", true, parameters_text,
      [](const TableRow& r) { return r.parameters.has_value(); });
  value("flops", "FLOPs/token", &TableRow::flops_per_token, format_magnitude);
  add(
      "spikes", "spikes", true, [](const TableRow& r) { return fmt::format("{}", r.spikes); },
      [](const TableRow& r) { return r.spikes > 0; });
  add("seeds", "seeds", false, seeds_text, always);
  return columns;
}

std::string terminal_table(const Table& table) {
  const auto columns = table_columns(table);
  std::vector<std::size_t> widths;
  for (const TableColumn& column : columns) {
    std::size_t width = display_width(column.heading);
    for (const auto& cell : column.cells) width = std::max(width, display_width(cell));
    widths.push_back(width);
  }
  std::string text;
  const auto line = [&](auto content) {
    std::string one;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (i > 0) one += "  ";
      one += padded(content(columns[i]), widths[i], columns[i].numeric);
    }
    one.erase(one.find_last_not_of(' ') + 1);
    text += one + "\n";
  };
  line([](const TableColumn& c) { return c.heading; });
  std::string rule;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (i > 0) rule += "  ";
    for (std::size_t k = 0; k < widths[i]; ++k) rule += "─";
  }
  text += rule + "\n";
  for (std::size_t row = 0; row < table.compared; ++row) {
    if (row > 0 && table.rows[row].depth != table.rows[row - 1].depth) text += "\n";
    line([&](const TableColumn& c) { return c.cells[row]; });
  }
  return text + "\n" + wrapped(table.note, std::clamp<std::size_t>(display_width(rule), 60, 120)) +
         "\n";
}

std::string markdown_table(const Table& table) {
  const auto columns = table_columns(table);
  std::string head = "|", rule = "|";
  for (const TableColumn& column : columns) {
    head += fmt::format(" {} |", escaped_for_markdown(column.heading));
    rule += column.numeric ? "---:|" : "---|";
  }
  std::string text = head + "\n" + rule + "\n";
  for (std::size_t row = 0; row < table.compared; ++row) {
    text += "|";
    for (const TableColumn& column : columns) {
      text += fmt::format(" {} |", escaped_for_markdown(column.cells[row]));
    }
    text += "\n";
  }
  return text + "\n" + table.note + "\n";
}

}  // namespace wavroute
