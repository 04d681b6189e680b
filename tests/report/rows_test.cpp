// Rows depend on what was run, and losses are subtracted only if they are comparable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "report/table.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A finished run of one depth. `changes`: over the configuration that all share.
RunData run(const std::string& name, int64_t seed, double loss, const RunSettings& changes = {}) {
  RunData result;
  result.folder = "runs/" + name + std::to_string(seed);
  result.label = name;
  result.status = "finished";
  result.depth = 12;
  result.seed = seed;
  result.val_loss = loss;
  result.bits_per_byte = 2 * loss;
  result.settings = {{"residual.scheme", "\"wav\""},
                     {"model.width", "64"},
                     {"train.steps", "10"},
                     {"optimizer.lr", "0.001"},
                     {"data.valid", "sha256:aa"}};
  for (const auto& [key, value] : changes) result.settings[key] = value;
  result.scheme = shown_value(result.settings.at("residual.scheme"));
  result.measure = {"aa", "tt", "bytes/256", 128, 1000, 1000, 1000};
  return result;
}

Table table_of(const std::vector<RunData>& runs) { return make_table(comparison_of_runs(runs)); }

TEST(Rows, RunsOfOneNameThatDifferInAKeyAreRowsOfTheirOwnThatNameTheKey) {
  const RunSettings fast = {{"optimizer.lr", "0.003"}};
  const Table table = table_of({run("tiny", 1, 2.0), run("tiny", 1, 1.0, fast), run("tiny", 2, 2.5),
                                run("tiny", 2, 1.6, fast)});
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(table.rows[0].label, "wav (optimizer.lr=0.001)");
  EXPECT_EQ(table.rows[1].label, "wav (optimizer.lr=0.003)");
  EXPECT_DOUBLE_EQ(*table.rows[0].loss, 2.25);
  ASSERT_TRUE(table.rows[1].difference.has_value());
  EXPECT_EQ(table.rows[1].difference->n, 2U);  // seed by seed
  EXPECT_NEAR(table.rows[1].difference->mean, -0.95, 1e-12);
  EXPECT_TRUE(table.rows[1].difference->half_width.has_value());
}

TEST(Rows, AnExtendedRunIsNoSampleOfOneThatWasPlannedSoLong) {
  const Table table =
      table_of({run("tiny", 1, 4.0), run("tiny", 2, 5.0, {{"schedule_steps", "4"}})});
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_DOUBLE_EQ(*table.rows[0].loss, 4.0);
  EXPECT_EQ(table.rows[1].label, "wav (schedule_steps=4)");
}

TEST(Rows, HandMadeRunsOfEqualSeedsArePairsWhateverTheirNames) {
  const RunSettings plain = {{"residual.scheme", "\"prenorm\""}};
  const Table table = table_of(
      {run("p1", 1, 2.0, plain), run("p2", 2, 2.1, plain), run("w1", 1, 1.5), run("w2", 2, 1.7)});
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(table.rows[0].label, "prenorm");
  EXPECT_EQ(table.rows[1].label, "wav");
  ASSERT_TRUE(table.rows[1].difference.has_value());
  EXPECT_EQ(table.rows[1].difference->n, 2U);
  EXPECT_TRUE(table.rows[1].differs.empty());  // the scheme is the label
}

TEST(Rows, NamesStayWhereTheyTellConfigurationsApartAndTheKeysStandBeside) {
  const Table table =
      table_of({run("slow", 1, 2.0), run("fast", 1, 1.0, {{"optimizer.lr", "0.003"}})});
  EXPECT_EQ(table.rows[1].label, "fast");
  EXPECT_EQ(keys_text(table.rows[1].differs), "optimizer.lr=0.003");
  EXPECT_THAT(terminal_table(table), HasSubstr("optimizer.lr=0.003"));
  EXPECT_THAT(table_rows(table).dump(), HasSubstr("\"optimizer.lr\":\"0.003\""));
}

TEST(Rows, OptionsThatBelongToAnotherSchemeAreNoDifference) {
  const Table table = table_of({run("p", 1, 2.0, {{"residual.scheme", "\"prenorm\""}}),
                                run("w", 1, 1.0, {{"residual.blocks", "2"}})});
  EXPECT_EQ(keys_text(table.rows[1].differs), "residual.scheme=wav");
  const Table both = table_of(
      {run("a", 1, 2.0, {{"residual.blocks", "4"}}), run("b", 1, 1.0, {{"residual.blocks", "2"}})});
  EXPECT_EQ(keys_text(both.rows[1].differs), "residual.blocks=2");
}

TEST(Rows, OneConfigurationAndSeedTwiceIsOneSample) {
  const Table table = table_of({run("tiny", 1, 2.0), run("tiny", 1, 2.0), run("tiny", 2, 3.0)});
  ASSERT_EQ(table.rows.size(), 1U);
  EXPECT_EQ(table.rows[0].seeds, 2U);
  EXPECT_EQ(table.rows[0].duplicates, 1U);
  EXPECT_DOUBLE_EQ(*table.rows[0].loss, 2.5);
  EXPECT_THAT(terminal_table(table), HasSubstr("2, 1 duplicate"));
  EXPECT_THAT(table.note, HasSubstr("count once: tiny"));
}

TEST(Rows, AFinishedRunStandsForASeedThatAnotherDidNotFinish) {
  RunData broken = run("tiny", 1, 9.0);
  broken.status = "stopped";
  const Table table = table_of({broken, run("tiny", 1, 2.0)});
  EXPECT_EQ(table.rows[0].finished, 1U);
  EXPECT_DOUBLE_EQ(*table.rows[0].loss, 2.0);
}

TEST(Rows, RunsThatGoOnAreInNoMean) {
  RunData running = run("tiny", 2, 1.0);
  running.status = "running";
  const Table table = table_of({run("tiny", 1, 2.0), running});
  EXPECT_DOUBLE_EQ(*table.rows[0].loss, 2.0);
  EXPECT_THAT(terminal_table(table),
              AllOf(HasSubstr("1 of 2, 1 running"), HasSubstr("not finished are left out of")));
}

TEST(Rows, CellsOfAGridThatHaveNotBegunBelongToTheirLabel) {
  Comparison comparison;
  for (const int64_t seed : {1, 2}) {
    Cell cell;
    cell.label = cell.scheme = "wav";
    cell.depth = 12;
    cell.seed = seed;
    if (seed == 1) take_run(cell, run("wav", 1, 2.0));
    comparison.cells.push_back(cell);
  }
  const Table table = make_table(comparison);
  ASSERT_EQ(table.rows.size(), 1U);
  EXPECT_EQ(table.rows[0].pending, 1U);
}

TEST(Rows, ALabelOfAGridWithTwoConfigurationsIsTwoRows) {
  Comparison comparison;
  for (const char* steps : {"10", "20"}) {
    Cell cell;
    cell.label = cell.scheme = "wav";
    cell.depth = 12;
    cell.seed = 1;
    take_run(cell, run("wav", 1, 2.0, {{"train.steps", steps}}));
    comparison.cells.push_back(cell);
  }
  const Table table = make_table(comparison);
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(table.rows[1].label, "wav (train.steps=20)");
}

// A change of what the loss is measured on, the note on it, and whether bits per byte can still be
// compared.
struct Case {
  const char* name;
  Measure measure;
  const char* word;
  bool bits;
};

class Unequal : public ::testing::TestWithParam<Case> {};

TEST_P(Unequal, MeasuresGiveNoDifferenceButAWord) {
  const Case& c = GetParam();
  std::vector<RunData> runs;
  for (const int64_t seed : {1, 2}) {
    runs.push_back(run("a", seed, 2.0));
    runs.push_back(run("b", seed, 1.0, {{"data.valid", "sha256:other"}}));
    runs.back().measure = c.measure;
  }
  const Table table = table_of(runs);
  ASSERT_EQ(table.rows.size(), 2U);
  const TableRow& row = table.rows[1];
  EXPECT_FALSE(row.difference.has_value());
  EXPECT_EQ(row.not_compared, c.word);
  EXPECT_EQ(row.bits_compare, c.bits);
  const std::string text = terminal_table(table);
  EXPECT_THAT(text, AllOf(HasSubstr(c.word), Not(HasSubstr("±"))));
  const auto json = table_rows(table).at(1);
  EXPECT_TRUE(json.at("difference").is_null());
  EXPECT_EQ(json.at("not_compared"), c.word);
  EXPECT_EQ(json.at("bits_per_byte_compare"), c.bits);
}

INSTANTIATE_TEST_SUITE_P(
    All, Unequal,
    ::testing::Values(
        Case{"text",
             {"bb", "tt", "bytes/256", 128, 1000, 1000, 1000},
             "another validation text",
             false},
        Case{
            "tokenizer", {"aa", "tt", "chars/90", 128, 1000, 990, 1000}, "another tokenizer", true},
        Case{"tokenizer_of_fewer_bytes",
             {"aa", "tt", "bpe/512", 128, 1000, 1000, 3000},
             "another tokenizer",
             false},
        Case{"unknown_text",
             {"", "tt", "bytes/256", 128, 1000, 1000, 1000},
             "validation text not known",
             false},
        Case{"unknown_corpus",
             {"aa", "", "bytes/256", 128, 1000, 1000, 1000},
             "training text not known",
             true},
        Case{"count",
             {"aa", "tt", "bytes/256", 128, 500, 500, 500},
             "another number of scored tokens",
             false},
        Case{"context", {"aa", "tt", "bytes/256", 64, 1000, 1000, 1000}, "another context", true},
        Case{"corpus",
             {"aa", "uu", "bytes/256", 128, 1000, 1000, 1000},
             "another training text",
             true}),
    [](const auto& info) { return std::string(info.param.name); });

// data.max_bytes is no setting once the texts are known by their hashes, but chooses a vocabulary.
TEST(Rows, RunsOfOneConfigurationWithOtherVocabulariesAreRowsOfTheirOwn) {
  std::vector<RunData> runs = {run("a", 1, 2.0), run("a", 2, 3.0)};
  runs[0].measure.tokenizer = "chars/60";
  runs[1].measure.tokenizer = "chars/90";
  const Table table = table_of(runs);
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_NE(table.rows[0].label, table.rows[1].label);
  EXPECT_EQ(table.rows[1].not_compared, "another tokenizer");
  runs[1].measure.tokens = std::nullopt;  // before the vocabulary was kept
  runs[1].measure.tokenizer = "chars";
  EXPECT_EQ(table_of(runs).rows.size(), 1U);
}

// A grid of one seed whose second cell was given more steps than the grid has.
Table grid_with_a_longer_cell(const std::vector<std::string>& unplanned) {
  Comparison comparison;
  for (const char* label : {"prenorm", "wav"}) {
    Cell cell;
    cell.label = cell.scheme = label;
    cell.depth = 12;
    cell.seed = 1;
    const bool is_longer = cell.label == "wav";
    take_run(cell, run(label, 1, 2.0, {{"train.steps", is_longer ? "30" : "10"}}));
    if (is_longer) cell.unplanned = unplanned;
    comparison.cells.push_back(cell);
  }
  return make_table(comparison);
}

TEST(Rows, ACellOfAGridThatWasTrainedLongerThanPlannedIsNotSubtracted) {
  const Table table = grid_with_a_longer_cell({"train.steps"});
  EXPECT_FALSE(table.rows[1].difference.has_value());
  EXPECT_EQ(table.rows[1].not_compared, "another number of steps");
  EXPECT_TRUE(grid_with_a_longer_cell({}).rows[1].difference.has_value());  // a variant's own
}

TEST(Rows, RunsOfUnequalLengthAreNotSubtracted) {
  const Table table =
      table_of({run("short", 1, 2.0), run("long", 1, 1.0, {{"train.steps", "20"}})});
  EXPECT_FALSE(table.rows[1].difference.has_value());
  EXPECT_THAT(table.note, HasSubstr("another number of steps"));
}

TEST(Rows, SpeedsOfTwoMachinesHaveNoMeanAndNoRatio) {
  std::vector<RunData> runs = {run("a", 1, 2.0), run("a", 2, 2.0),
                               run("b", 1, 2.0, {{"optimizer.lr", "1"}})};
  for (RunData& r : runs) r.tokens_per_s = 100.0;
  runs[0].machine = runs[1].machine = "x";
  runs[2].machine = "y";
  Table table = table_of(runs);
  EXPECT_EQ(table.rows[0].tokens_per_s, 100.0);
  EXPECT_FALSE(table.rows[1].speed_ratio.has_value());
  runs[1].machine = "y";
  table = table_of(runs);
  EXPECT_FALSE(table.rows[0].tokens_per_s.has_value());
}

TEST(RunSettings, LeaveOutTheSeedAndWhatChangesNoResult) {
  const RunConfig a = read_run_config(
      "name = \"a\"\n[train]\nseed = 1\nthreads = 2\nlog_every = 5\nkeep = 1\nmicro_batch = 4\n"
      "[sample]\ntokens = 3\n[optimizer]\nlr = 1\n",
      "config.toml");
  const RunConfig b = read_run_config(
      "name = \"b\"\n[train]\nseed = 2\n[optimizer]\nlr = 1.0\n[compare]\nseeds = [1]\n",
      "config.toml");
  EXPECT_EQ(a.settings, b.settings);
  EXPECT_EQ(a.seed, 1);
  EXPECT_EQ(b.seed, 2);
  EXPECT_NE(a.settings, read_run_config("[model]\ncontext = 3\n", "config.toml").settings);
}

TEST(RunSettings, AKeyThatAnOlderFileLacksHasItsDefault) {
  EXPECT_EQ(read_run_config("", "c").settings,
            read_run_config("[data]\neval_tokens = 1000000\n", "c").settings);
}

TEST(RunSettings, TheSameBytesAsRawIdsAreAnotherText) {
  const auto of_format = [](const std::string& format) {
    auto settings = read_run_config("[data]\nformat = \"" + format + "\"\n", "c").settings;
    identify_texts(settings, "11", "22");
    return settings;
  };
  EXPECT_EQ(of_format("auto"), of_format("text"));
  EXPECT_EQ(of_format("auto"), of_format("bytes"));
  EXPECT_NE(of_format("auto"), of_format("tokens16"));
  EXPECT_NE(of_format("tokens32"), of_format("tokens16"));
}

TEST(RunSettings, ARunIsUnplannedInTheKeysThatItsPlanGives) {
  const std::string plan =
      "[model]\nhidden = 0\n[data]\ntrain = \"t\"\n[optimizer]\nclip = 0\n"
      "[residual]\nblocks = \"auto\"\nscheme = \"wav\"\n[train]\nsteps = 10\nprecision = "
      "\"auto\"\n";
  const RunSettings planned = read_run_config(plan, "c").settings;
  RunSettings run = planned;
  identify_texts(run, "11", "22");
  run["model.hidden"] = "64";
  run["residual.blocks"] = "4";
  run["train.precision"] = "\"bf16\"";
  EXPECT_EQ(unplanned_keys(planned, run), std::vector<std::string>());
  run["train.steps"] = "30";
  run["optimizer.clip"] = "1";
  run[kScheduleSteps] = "10";
  EXPECT_EQ(unplanned_keys(planned, run),
            (std::vector<std::string>{"optimizer.clip", "train.steps", "schedule_steps"}));
}

TEST(RunSettings, TheTokenizerOfAPreparedFolderIsPlannedWithTheFolder) {
  const RunSettings planned = read_run_config("[data]\ntrain = \"/t\"\n", "c").settings;
  for (const char* shown : {"\"/t/tokenizer.json\"", "\"bpe 01234567\""}) {
    RunSettings run = planned;
    run["data.tokenizer"] = shown;
    EXPECT_EQ(unplanned_keys(planned, run), std::vector<std::string>());
  }
  RunSettings run = planned;
  run["data.tokenizer"] = "\"chars\"";
  EXPECT_EQ(unplanned_keys(planned, run), std::vector<std::string>{"data.tokenizer"});
}

TEST(RunSettings, ATextIsItsHashNotItsPlace) {
  RunSettings a = read_run_config("[data]\ntrain = \"/x/t.txt\"\n", "c").settings;
  RunSettings b = read_run_config("[data]\ntrain = \"/y/t.txt\"\n", "c").settings;
  EXPECT_NE(a, b);
  identify_texts(a, "11", "22");
  identify_texts(b, "11", "22");
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace wavroute
