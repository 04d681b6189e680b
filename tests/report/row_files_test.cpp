// Rows for other programs.
#include "report/row_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "io/file.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Comparison comparison_of(const std::string& label) {
  Comparison comparison;
  for (const int64_t seed : {1, 2}) {
    for (const std::string& name : {std::string("prenorm"), label}) {
      Cell cell;
      cell.label = cell.scheme = name;
      cell.depth = 12;
      cell.seed = seed;
      cell.status = CellStatus::kFinished;
      cell.val_loss = 2.5 + static_cast<double>(seed) / 8;
      comparison.cells.push_back(cell);
    }
  }
  return comparison;
}

TEST(RowFiles, CsvHasANameForEveryColumnAndEmptyCellsForWhatIsNotKnown) {
  std::istringstream lines(rows_csv(make_table(comparison_of("wav"))));
  std::string names, prenorm, wav, more;
  std::getline(lines, names);
  std::getline(lines, prenorm);
  std::getline(lines, wav);
  EXPECT_FALSE(std::getline(lines, more));
  EXPECT_THAT(names, StartsWith("label,scheme,role,depth,"));
  for (const char* name : {",loss,", ",difference_mean,", ",p_holm,", ",noise_floor,"}) {
    EXPECT_THAT(names, HasSubstr(name));
  }
  EXPECT_THAT(wav, StartsWith("wav,wav,scheme,12,"));
  const auto commas = [](const std::string& line) {  // that are no part of a text
    bool in_text = false;
    return std::ranges::count_if(line, [&](char c) {
      in_text = in_text != (c == '"');
      return c == ',' && !in_text;
    });
  };
  EXPECT_EQ(commas(prenorm), commas(names));
  EXPECT_EQ(commas(wav), commas(names));
}

TEST(RowFiles, CsvQuotesALabelWithCommasAndQuotes) {
  EXPECT_THAT(rows_csv(make_table(comparison_of("a, \"b\""))), HasSubstr("\"a, \"\"b\"\"\","));
}

// The file format's first 16 bytes; tests/python/test_compare.py reads what it holds.
TEST(RowFiles, SqliteIsADatabaseOrSaysThatItIsLeftOut) {
  const testing::TemporaryFolder folder;
  const Comparison comparison = comparison_of("wav");
  try {
    write_rows_sqlite(folder / "rows.sqlite", comparison, make_table(comparison));
    EXPECT_THAT(read_file(folder / "rows.sqlite"),
                StartsWith(std::string("SQLite format 3\0", 16)));
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), HasSubstr("libsqlite3"));
  }
}

}  // namespace
}  // namespace wavroute
