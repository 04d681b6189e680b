// The paragraph at the top of the page. It claims no more than the intervals do.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/numbers.h"
#include "report/page_data.h"

namespace wavroute {
namespace {

std::string joined(const std::vector<std::string>& items) {
  std::string text;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += i + 1 == items.size() ? " and " : ", ";
    text += items[i];
  }
  return text;
}

std::string counted(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

// With no-break spaces, so that a value and its interval stay on one line.
std::string unbroken(std::string text) {
  for (std::size_t at = text.find(' '); at != std::string::npos; at = text.find(' ', at)) {
    text.replace(at, 1, "\u00A0");
  }
  return text;
}

std::string depth_words(const std::optional<int64_t>& depth) {
  return depth ? fmt::format("At {} layers", *depth) : "Overall";
}

// "wav, 12 layers, seed 1: finished after 2,000 steps, validation loss 1.2345 ..."
std::string one_run(const RunData& run) {
  std::string text = "One run: " + run.label;
  if (run.depth) text += fmt::format(", {} layers", *run.depth);
  if (run.seed) text += fmt::format(", seed {}", *run.seed);
  text += fmt::format("; {}", run.status);
  const int64_t reached = std::max(run.train.empty() ? 0 : run.train.back().step,
                                   run.validation.empty() ? 0 : run.validation.back().step);
  if (reached > 0) text += fmt::format(" at step {}", format_count(static_cast<double>(reached)));
  if (run.val_loss) {
    text += fmt::format(", validation loss {:.4f} nats per token", *run.val_loss);
    if (run.bits_per_byte) text += fmt::format(" ({:.4f} bits per byte)", *run.bits_per_byte);
  } else {
    text += ", without a validation loss";
  }
  return text + ".";
}

std::string what_was_compared(const ReportSection& section) {
  std::vector<std::string> labels, depths;
  std::set<int64_t> seeds;
  for (const TableRow& row : section.table.rows) {
    if (std::ranges::find(labels, row.label) == labels.end()) labels.push_back(row.label);
    const auto depth = row.depth ? fmt::format("{}", *row.depth) : std::string();
    if (row.depth && std::ranges::find(depths, depth) == depths.end()) depths.push_back(depth);
  }
  for (const Cell& cell : section.comparison.cells) {
    if (cell.seed) seeds.insert(*cell.seed);
  }
  std::string text = labels.size() == 1 ? labels.front() : joined(labels);
  if (!depths.empty()) text += fmt::format(" at {} layers", joined(depths));
  if (!seeds.empty()) text += fmt::format(", {}", counted(seeds.size(), "seed"));
  return fmt::format("{}: {}.", counted(section.comparison.cells.size(), "run"), text);
}

std::string how_they_ended(const Table& table) {
  std::vector<std::string> parts;
  const auto add = [&](auto count, std::string_view words) {
    for (const TableRow& row : table.rows) {
      if (row.*count == 0) continue;
      const auto depth = row.depth ? fmt::format(" at {} layers", *row.depth) : std::string();
      parts.push_back(fmt::format("{}{} {} in {} of {}", row.label, depth, words, row.*count,
                                  counted(row.seeds, "run")));
    }
  };
  add(&TableRow::diverged, "diverged");
  add(&TableRow::failed, "failed");
  add(&TableRow::running, "is running");
  add(&TableRow::stopped, "was stopped");
  add(&TableRow::pending, "is not finished");
  return parts.empty() ? std::string() : fmt::format(" {}.", joined(parts));
}

// "Not compared with prenorm: chars (another tokenizer; bits per byte can be compared)."
std::string not_compared(std::span<const TableRow> rows, const std::string& reference) {
  std::vector<std::string> parts;
  for (const TableRow& row : rows) {
    if (row.not_compared.empty()) continue;
    parts.push_back(fmt::format("{} ({}{})", row.label, row.not_compared,
                                row.bits_compare ? "; bits per byte can be compared" : ""));
  }
  if (parts.empty()) return {};
  return fmt::format("The losses of {} are not compared with {}'s.", joined(parts), reference);
}

// The rows of one depth, sorted into what their differences to the reference show.
std::string differences(std::span<const TableRow> rows, const std::string& reference) {
  std::vector<std::string> lower, higher, same, single;
  for (const TableRow& row : rows) {
    if (!row.difference) continue;
    const PairedDifference& difference = *row.difference;
    const auto entry = fmt::format("{} ({})", row.label, unbroken(format_difference(difference)));
    if (!difference.half_width) {
      single.push_back(entry);
    } else if (!difference.excludes_zero()) {
      same.push_back(entry);
    } else {
      (difference.mean < 0.0 ? lower : higher).push_back(entry);
    }
  }
  std::vector<std::string> parts;
  if (!lower.empty()) {
    parts.push_back(fmt::format("the loss is lower than {}'s for {}", reference, joined(lower)));
  }
  if (!higher.empty()) {
    parts.push_back(fmt::format("the loss is higher than {}'s for {}", reference, joined(higher)));
  }
  if (!same.empty()) {
    parts.push_back(fmt::format("no difference shown to {} for {}, whose interval contains zero",
                                reference, joined(same)));
  }
  if (!single.empty()) {
    parts.push_back(
        fmt::format("one seed only, so no difference shown; the measured difference to {} is {}",
                    reference, joined(single)));
  }
  if (parts.empty()) return {};
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i)
    text += fmt::format("{}{}", i > 0 ? "; " : "", parts[i]);
  return text + ".";
}

std::string speeds(std::span<const TableRow> rows, const std::string& reference) {
  std::vector<std::string> parts;
  for (const TableRow& row : rows) {
    if (row.is_reference || !row.speed_ratio) continue;
    parts.push_back(fmt::format("{} {:.2f}", row.label, *row.speed_ratio));
  }
  if (parts.empty()) return {};
  return fmt::format("Tokens per second against {}: {}.", reference, joined(parts));
}

}  // namespace

std::vector<std::string> summary_words(const ReportSection& section) {
  if (section.comparison.cells.size() == 1 && section.runs.size() == 1) {
    return {one_run(section.runs.front())};
  }
  const Table& table = section.table;
  std::vector<std::string> paragraphs = {what_was_compared(section) + how_they_ended(table)};
  for (std::size_t begin = 0; begin < table.rows.size();) {
    std::size_t end = begin + 1;
    while (end < table.rows.size() && table.rows[end].depth == table.rows[begin].depth) ++end;
    const auto rows = std::span(table.rows).subspan(begin, end - begin);
    std::string said;
    const auto reference = std::ranges::find(rows, true, &TableRow::is_reference);
    const std::string& name = reference == rows.end() ? table.reference : reference->label;
    for (const std::string& part :
         {differences(rows, name), not_compared(rows, name), speeds(rows, name)}) {
      if (!part.empty()) said += (said.empty() ? "" : " ") + part;
    }
    if (!said.empty()) {
      paragraphs.push_back(fmt::format("{}: {}", depth_words(rows.front().depth), said));
    }
    begin = end;
  }
  if (!section.unread.empty()) {
    paragraphs.push_back(
        fmt::format("Left out, because it can't be read: {}.", joined(section.unread)));
  }
  return paragraphs;
}

}  // namespace wavroute
