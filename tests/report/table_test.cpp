#include "report/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <stdexcept>
#include <tuple>

#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Cell cell(const std::string& label, int64_t depth, int64_t seed, double loss,
          CellStatus status = CellStatus::kFinished) {
  Cell result;
  result.label = result.scheme = label;
  result.depth = depth;
  result.seed = seed;
  result.status = status;
  result.parameters = 1.25e7;
  result.flops_per_token = 7.5e7;
  if (status == CellStatus::kFinished) {
    result.val_loss = loss;
    result.bits_per_byte = 2 * loss;
  }
  return result;
}

TableRow row(const Table& table, const std::string& label, int64_t depth) {
  const auto found = std::ranges::find_if(
      table.rows, [&](const TableRow& r) { return r.label == label && r.depth == depth; });
  if (found == table.rows.end()) throw std::runtime_error("no row " + label);
  return *found;
}

Comparison two_schemes() {
  Comparison comparison;
  for (const int64_t seed : {1, 2, 3}) {
    const double shift = static_cast<double>(seed);  // of the seed, the same for both schemes
    comparison.cells.push_back(cell("prenorm", 12, seed, 1.0 + shift));
    comparison.cells.push_back(cell("wav", 12, seed, 0.5 + shift + 0.01 * shift));
  }
  comparison.speed = {{"prenorm", 12, 2000.0, 4.0, 1.0 * (1 << 30)},
                      {"wav", 12, 1900.0, 4.2, 1.5 * (1 << 30)}};
  return comparison;
}

TEST(Table, MeansAndPairedDifferencesFollowFromTheCells) {
  const Table table = make_table(two_schemes());
  const TableRow wav = row(table, "wav", 12);
  EXPECT_DOUBLE_EQ(*wav.loss, 2.52);
  EXPECT_DOUBLE_EQ(*wav.bits_per_byte, 5.04);
  ASSERT_TRUE(wav.difference.has_value());
  // Differences -0.49, -0.48, -0.47: the seeds' own spread of 1 is not in the interval.
  EXPECT_NEAR(wav.difference->mean, -0.48, 1e-12);
  EXPECT_NEAR(*wav.difference->half_width, 4.302653 * 0.01 / std::sqrt(3.0), 1e-7);
  EXPECT_DOUBLE_EQ(*wav.speed_ratio, 0.95);
  EXPECT_TRUE(row(table, "prenorm", 12).is_reference);
  EXPECT_FALSE(row(table, "prenorm", 12).difference.has_value());
}

TEST(Table, PairsOnlyTheSeedsThatBothHaveFinished) {
  Comparison comparison = two_schemes();
  comparison.cells[1] = cell("wav", 12, 1, 0, CellStatus::kDiverged);
  comparison.cells[2] = cell("prenorm", 12, 2, 0, CellStatus::kFailed);
  const TableRow wav = row(make_table(comparison), "wav", 12);
  ASSERT_TRUE(wav.difference.has_value());
  EXPECT_EQ(wav.difference->n, 1U);  // seed 3 alone
  EXPECT_NEAR(wav.difference->mean, -0.47, 1e-12);
  EXPECT_FALSE(wav.difference->half_width.has_value());
  EXPECT_DOUBLE_EQ(*wav.loss, (2.52 + 3.53) / 2);
}

TEST(Table, EachDepthIsComparedWithItsOwnReference) {
  Comparison comparison = two_schemes();
  comparison.cells.insert(comparison.cells.begin(), cell("prenorm", 24, 1, 7.0));
  comparison.cells.push_back(cell("wav", 24, 1, 6.0));
  const Table table = make_table(comparison);
  EXPECT_DOUBLE_EQ(row(table, "wav", 24).difference->mean, -1.0);
  EXPECT_EQ(table.rows.front().depth, 12);  // ascending, whatever the order of the cells
  EXPECT_EQ(table.rows.back().depth, 24);
}

TEST(Table, ADepthWithoutTheReferenceHasNoDifferences) {
  Comparison comparison = two_schemes();
  comparison.cells.push_back(cell("wav", 48, 1, 1.0));
  comparison.cells.push_back(cell("haares", 48, 1, 1.0));
  EXPECT_FALSE(row(make_table(comparison), "haares", 48).difference.has_value());
}

TEST(Table, OneSeedPrintsNoIntervalAndSaysWhy) {
  Comparison comparison;
  comparison.cells = {cell("prenorm", 12, 1, 1.5), cell("wav", 12, 1, 1.25)};
  const std::string text = terminal_table(make_table(comparison));
  EXPECT_THAT(text, HasSubstr("−0.2500 (n=1)"));
  EXPECT_THAT(text, Not(HasSubstr("±")));
  EXPECT_THAT(text, HasSubstr("has no interval"));
}

TEST(Table, SeveralSeedsPrintTheIntervalAndNameIt) {
  const std::string text = terminal_table(make_table(two_schemes()));
  EXPECT_THAT(text, HasSubstr("−0.4800 ± 0.0248 (n=3)"));
  EXPECT_THAT(text, HasSubstr("Student's t"));
  EXPECT_THAT(text, HasSubstr("0.95"));
  EXPECT_THAT(text, HasSubstr("1.50 GiB"));
  EXPECT_THAT(text, HasSubstr("12.5M"));
  EXPECT_THAT(text, HasSubstr("75.0M"));
}

TEST(Table, CellsThatDidNotFinishAreNamedInWords) {
  Comparison comparison = two_schemes();
  comparison.cells[1].status = CellStatus::kDiverged;
  comparison.cells[3].status = CellStatus::kFailed;
  comparison.cells.push_back(cell("act", 12, 1, 0, CellStatus::kPending));
  const std::string text = terminal_table(make_table(comparison));
  EXPECT_THAT(text, HasSubstr("1 of 3, 1 diverged, 1 failed"));
  EXPECT_THAT(text, HasSubstr("not finished"));
}

TEST(Table, ColumnsOfTheTerminalFormEndAtTheSamePlaceInEveryRow) {
  Comparison comparison = two_schemes();
  comparison.cells.push_back(cell("ümläut", 12, 1, 100.0));
  const Table table = make_table(comparison);
  std::istringstream lines(terminal_table(table));
  const auto width = [](const std::string& s) {
    return std::ranges::count_if(s, [](unsigned char c) { return (c & 0xC0) != 0x80; });
  };
  std::string header, rule, line;
  std::getline(lines, header);
  std::getline(lines, rule);
  EXPECT_EQ(width(rule), width(header));
  std::set<std::ptrdiff_t> ends;  // of the loss, which is the third column: 4 digits then space
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    std::getline(lines, line);
    const std::size_t point = line.find('.');
    ASSERT_NE(point, std::string::npos);
    ends.insert(width(line.substr(0, point)));
  }
  EXPECT_EQ(ends.size(), 1U);
}

TEST(Table, MarkdownHasOneCellPerColumnWhateverTheLabelHolds) {
  Comparison comparison;
  comparison.cells = {cell("a|b\n|---|", 12, 1, 1.0), cell("wav", 12, 1, 1.0)};
  const Table table = make_table(comparison);
  const auto columns = table_columns(table).size();
  std::istringstream lines(markdown_table(table));
  std::string line;
  for (int i = 0; i < 4; ++i) {  // heading, rule, two rows
    std::getline(lines, line);
    std::size_t bars = 0;
    for (std::size_t k = 0; k < line.size(); ++k) {
      bars += line[k] == '|' && (k == 0 || line[k - 1] != '\\');
    }
    EXPECT_EQ(bars, columns + 1) << line;
  }
}

TEST(Table, ATerminalNeverGetsControlCharactersFromALabel) {
  Comparison comparison;
  comparison.cells = {cell("a\x1b[31m\n", 12, 1, 1.0)};
  const std::string text = terminal_table(make_table(comparison));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(Table, ADifferenceHasItsSignAndItsInterval) {
  EXPECT_EQ(format_difference({0.00001, std::nullopt, 1}), "0.0000");
  EXPECT_EQ(format_difference({0.25, 0.5, 2}), "+0.2500 ± 0.5000");
}

TEST(Comparison, ReadsEveryFieldOfItsFile) {
  const auto document = nlohmann::json::parse(R"({"name": "demo", "created": "today",
    "machine": {"cores": 2}, "corpus": {"sha256": "ab"},
    "cells": [{"label": "wav2", "scheme": "wav", "depth": 12, "seed": 3, "run": "cells/x",
               "status": "diverged", "val_loss": null, "parameters": 10}],
    "speed": [{"label": "wav2", "depth": 12, "tokens_per_s": 5.5, "peak_rss_bytes": 7}]})");
  const Comparison comparison = parse_comparison(document, "here");
  ASSERT_EQ(comparison.cells.size(), 1U);
  EXPECT_EQ(comparison.cells[0].label, "wav2");
  EXPECT_EQ(comparison.cells[0].scheme, "wav");
  EXPECT_EQ(comparison.cells[0].seed, 3);
  EXPECT_EQ(comparison.cells[0].status, CellStatus::kDiverged);
  EXPECT_FALSE(comparison.cells[0].val_loss.has_value());
  EXPECT_EQ(comparison.speed.at(0).tokens_per_s, 5.5);
  EXPECT_EQ(comparison.corpus.at("sha256"), "ab");
}

TEST(Comparison, IsReadBackFromItsDocumentAsItWas) {
  Comparison written;
  written.name = "demo";
  written.created = "2026-06-01T00:00:00Z";
  written.machine = {{"cores", 2}};
  written.corpus = {{"sha256", "ab"}};
  for (const CellStatus status :
       {CellStatus::kFinished, CellStatus::kDiverged, CellStatus::kFailed, CellStatus::kPending,
        CellStatus::kRunning, CellStatus::kStopped}) {
    written.cells.push_back(cell("wav2", 12, std::ssize(written.cells) + 1, 1.0 / 3.0, status));
    written.cells.back().run = "cells/x";
    written.cells.back().measure = {"ab", "cd", "bytes/256", 16, 100, 99, 98};
  }
  Cell bare;
  bare.label = "bare";
  bare.scheme = "wav";
  written.cells.push_back(bare);
  written.speed = {{"wav2", 12, 1e6 / 3.0, 4.25, 7e9}, {"bare", {}, {}, {}, {}}};

  const auto text = comparison_document(written).dump(2);
  const Comparison read = parse_comparison(nlohmann::json::parse(text), "here");
  EXPECT_EQ(read.name, written.name);
  EXPECT_EQ(read.created, written.created);
  EXPECT_EQ(read.machine, written.machine);
  EXPECT_EQ(read.corpus, written.corpus);
  const auto fields = [](const Cell& c) {
    return std::tuple(c.label, c.scheme, c.depth, c.seed, c.run, c.status, c.val_loss,
                      c.bits_per_byte, c.parameters, c.flops_per_token);
  };
  const auto same_measure = [](const Cell& a, const Cell& b) { return a.measure == b.measure; };
  ASSERT_EQ(read.cells.size(), written.cells.size());
  for (std::size_t i = 0; i < read.cells.size(); ++i) {
    EXPECT_EQ(fields(read.cells[i]), fields(written.cells[i])) << i;
    EXPECT_TRUE(same_measure(read.cells[i], written.cells[i])) << i;
  }
  const auto speed_fields = [](const Speed& s) {
    return std::tuple(s.label, s.depth, s.tokens_per_s, s.ms_p50, s.peak_rss_bytes);
  };
  ASSERT_EQ(read.speed.size(), written.speed.size());
  for (std::size_t i = 0; i < read.speed.size(); ++i) {
    EXPECT_EQ(speed_fields(read.speed[i]), speed_fields(written.speed[i])) << i;
  }
}

TEST(Comparison, OfANewerFormatIsRefusedAndOfNoneRead) {
  using nlohmann::json;
  EXPECT_EQ(comparison_document({}).at("format"), 1);
  EXPECT_NO_THROW((void)parse_comparison(json::parse(R"({"cells": []})"), "here"));
  for (const char* newer : {R"({"format": 2})", R"({"format": "b"})"}) {
    EXPECT_THROW((void)parse_comparison(json::parse(newer), "here"), UserError) << newer;
  }
}

TEST(Comparison, AnUnknownStatusOrAWrongTypeIsAUserError) {
  using nlohmann::json;
  EXPECT_THROW((void)parse_comparison(json::array(), "here"), UserError);
  EXPECT_THROW((void)parse_comparison(json::parse(R"({"cells": 3})"), "here"), UserError);
  EXPECT_THROW((void)parse_comparison(json::parse(R"({"cells": [3]})"), "here"), UserError);
  EXPECT_THROW((void)parse_comparison(
                   json::parse(R"({"cells": [{"label": "a", "status": "odd"}]})"), "here"),
               UserError);
}

TEST(Comparison, ALossThatIsNotFiniteIsANullWithAStatus) {
  Comparison comparison;
  comparison.cells = {cell("wav", 12, 1, 0, CellStatus::kDiverged)};
  const auto entry = comparison_document(comparison).at("cells").at(0);
  EXPECT_TRUE(entry.at("val_loss").is_null());
  EXPECT_EQ(entry.at("status"), "diverged");
}

}  // namespace
}  // namespace wavroute
