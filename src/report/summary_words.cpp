#include "report/summary_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

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

std::string what_was_compared(const Comparison& comparison, const Table& table) {
  std::vector<std::string> labels, depths;
  std::set<int64_t> seeds;
  for (const TableRow& row : table.compared_rows()) {
    if (std::ranges::find(labels, row.label) == labels.end()) labels.push_back(row.label);
    const auto depth = row.depth ? fmt::format("{}", *row.depth) : std::string();
    if (row.depth && std::ranges::find(depths, depth) == depths.end()) depths.push_back(depth);
  }
  for (const Cell& cell : comparison.cells) {
    if (cell.seed) seeds.insert(*cell.seed);
  }
  std::string text = labels.size() == 1 ? labels.front() : joined(labels);
  if (!depths.empty()) text += fmt::format(" at {} layers", joined(depths));
  if (!seeds.empty()) text += fmt::format(", {}", counted(seeds.size(), "seed"));
  return fmt::format("{}: {}.", counted(comparison.cells.size(), "run"), text);
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

// "haares (−0.0846 ± 0.0775, p = 0.012)"
std::string difference_entry(const TableRow& row) {
  std::string numbers = format_difference(*row.difference);
  if (row.p_holm) {
    const std::string p = format_p(*row.p_holm);
    numbers += fmt::format(", p {}{}", p.starts_with('<') ? "" : "= ", p);
  }
  return fmt::format("{} ({})", row.label, unbroken(numbers));
}

// The rows of one depth, sorted into what their differences to the reference show.
std::string differences(std::span<const TableRow> rows, const std::string& reference,
                        std::size_t comparisons) {
  std::vector<std::string> lower, higher, same, open, single;
  for (const TableRow& row : rows) {
    if (!row.difference) continue;
    const PairedDifference& difference = *row.difference;
    auto& list = !difference.half_width       ? single
                 : row.is_shown()             ? (difference.mean < 0.0 ? lower : higher)
                 : difference.excludes_zero() ? open
                                              : same;
    list.push_back(difference_entry(row));
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
  if (!open.empty()) {
    parts.push_back(
        fmt::format("no difference shown to {} for {}: one of {} comparisons may look so by chance",
                    reference, joined(open), comparisons));
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

std::string noise(std::span<const TableRow> rows, const std::string& reference) {
  const auto floor = rows.front().noise_floor;
  const bool has_difference =
      std::ranges::any_of(rows, [](const TableRow& row) { return row.difference.has_value(); });
  if (!floor || !has_difference) return {};
  return fmt::format("Other seeds alone move {}'s mean by up to {} (noise floor).", reference,
                     fmt::format("{:.4f}", *floor));
}

// Of the rows with a lower loss: what it would cost the reference. Other differences are worth
// nothing that could be told from chance.
std::string worth(std::span<const TableRow> rows, const std::string& reference) {
  std::vector<std::string> parts;
  for (const TableRow& row : rows) {
    if (!row.is_shown() || !row.equal_loss_compute) continue;
    std::string part =
        fmt::format("{:.2f} times the compute for {}'s loss", *row.equal_loss_compute, row.label);
    if (row.is_extrapolated) part += " (beyond its largest budget, so extrapolated)";
    if (row.effective_speedup) {
      part += fmt::format(", {:.2f} times the time at the measured speeds", *row.effective_speedup);
    }
    parts.push_back(std::move(part));
  }
  if (parts.empty()) return {};
  return fmt::format("{} would need {}.", reference, joined(parts));
}

std::string parameters(std::span<const TableRow> rows, const std::string& reference) {
  constexpr double kWorthSaying = 0.01;
  std::vector<std::string> parts;
  for (const TableRow& row : rows) {
    if (!row.parameter_share || *row.parameter_share <= kWorthSaying || !row.wider_for.empty()) {
      continue;
    }
    std::string part = fmt::format("{} {:.1f} %", row.label, 100.0 * *row.parameter_share);
    for (const TableRow& other : rows) {
      if (std::ranges::count(other.wider_for, row.cell_label) > 0)
        part += fmt::format(" (as many as {})", other.label);
    }
    parts.push_back(std::move(part));
  }
  if (parts.empty()) return {};
  return fmt::format("More parameters than {}: {}.", reference, joined(parts));
}

std::string how_rates_were_chosen(const Table& table) {
  if (table.rates.empty()) return {};
  const bool several_depths = std::ranges::any_of(table.rates, [&](const RateChoice& choice) {
    return choice.depth != table.rates.front().depth;
  });
  bool own = false;
  std::vector<std::string> chosen, lowest, highest;
  for (const RateChoice& choice : table.rates) {
    own = own || choice.on_own_seed;
    const std::string name = several_depths && choice.depth
                                 ? fmt::format("{} at {} layers", choice.label, *choice.depth)
                                 : choice.label;
    chosen.push_back(fmt::format("{} {}", name, choice.lr));
    if (choice.end_of_grid() < 0) lowest.push_back(name);
    if (choice.end_of_grid() > 0) highest.push_back(name);
  }
  std::string text = fmt::format(
      " Learning rates, the best of {} on the first seed: {}; {}.",
      table.rates.front().tried.size(), joined(chosen),
      own ? "chosen and reported on the same seed, which makes every loss look better than it is"
          : "the losses are of the other seeds");
  for (const auto& [rows, word, beyond] :
       {std::tuple(&lowest, "lowest", "lower"), std::tuple(&highest, "highest", "higher")}) {
    if (rows->empty()) continue;
    text += fmt::format(" The best was the {} of the grid for {}: a {} one may be better.", word,
                        joined(*rows), beyond);
  }
  return text;
}

std::string decisions(const Table& table) {
  std::vector<std::string> parts;
  for (const DepthDecision& decision : table.decisions) {
    parts.push_back(fmt::format("{} of {} at {} layers", decision.accuracy.agree,
                                counted(decision.accuracy.pairs, "pair"), decision.depth));
  }
  if (parts.empty()) return {};
  return fmt::format(" The order of losses is that of {} layers for {}.",
                     table.decisions.front().deepest, joined(parts));
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

std::string summary_paragraph(const Comparison& comparison, const Table& table) {
  std::string text = what_was_compared(comparison, table) + how_they_ended(table);
  for (std::size_t begin = 0; begin < table.compared;) {
    std::size_t end = begin + 1;
    while (end < table.compared && table.rows[end].depth == table.rows[begin].depth) ++end;
    const auto rows = table.compared_rows().subspan(begin, end - begin);
    std::string said;
    const auto reference = std::ranges::find(rows, true, &TableRow::is_reference);
    const std::string& name = reference == rows.end() ? table.reference : reference->label;
    for (const std::string& part :
         {differences(rows, name, table.comparisons), noise(rows, name), worth(rows, name),
          not_compared(rows, name), parameters(rows, name), speeds(rows, name)}) {
      if (!part.empty()) said += (said.empty() ? "" : " ") + part;
    }
    if (!said.empty()) text += fmt::format(" {}: {}", depth_words(rows.front().depth), said);
    begin = end;
  }
  return text + decisions(table) + how_rates_were_chosen(table);
}

std::vector<std::string> summary_words(const ReportSection& section) {
  if (section.comparison.cells.size() == 1 && section.runs.size() == 1) {
    return {one_run(section.runs.front())};
  }
  std::vector<std::string> paragraphs = {summary_paragraph(section.comparison, section.table)};
  if (!section.unread.empty()) {
    paragraphs.push_back(
        fmt::format("Left out, because it can't be read: {}.", joined(section.unread)));
  }
  return paragraphs;
}

}  // namespace wavroute
