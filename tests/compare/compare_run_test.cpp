// A comparison whose cells are a script: what happens to the grid when they fail.
#include "compare/compare_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "config/load.h"
#include "io/file.h"
#include "report/table.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;

const SchemeCatalog& catalog() {
  static const SchemeCatalog all = {{"prenorm", "", {}}, {"wav", "", {}}};
  return all;
}

class CompareRun : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.name = "grid";
    config_.compare.schemes = {"prenorm", "wav"};
    config_.compare.seeds = {1, 2};
  }

  // A program that is called as `train CONFIG --out FOLDER ...`; $2 and $4 of `body` are those.
  fs::path program(const std::string& body) const {
    fs::path path = folder_ / "program";
    std::ofstream(path) << "#!/bin/sh\ncase $4 in\n" << body << "\nesac\n";
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }

  CompareOutcome compare(const std::string& body) {
    CompareOptions options;
    options.out = folder_ / "out";
    make_folders(options.out);
    options.program = program(body).string();
    options.measure_speed = measure_speed_;
    options.stop = [] { return false; };
    options.say = [this](const std::string& line) { said_.push_back(line); };
    options.jobs = jobs_;
    cells_ = expand_grid(config_, catalog());
    return run_comparison(config_, cells_, options);
  }

  std::vector<CellStatus> statuses(const CompareOutcome& outcome) const {
    std::vector<CellStatus> all;
    for (const Cell& cell : outcome.comparison.cells) all.push_back(cell.status);
    return all;
  }

  const testing::TemporaryFolder temporary_{"wavroute compare "};
  const fs::path folder_ = temporary_.path();
  Config config_;
  std::vector<GridCell> cells_;
  std::vector<std::string> said_;
  MeasureSpeed measure_speed_;
  int64_t jobs_ = 1;
};

// What a cell writes: summary.json with this status and loss.
std::string leaves(const std::string& cell, const std::string& summary) {
  return "*" + cell + ") echo '" + summary + "' > \"$4/summary.json\";;\n";
}

constexpr const char* kGood = R"({"status": "finished", "val_loss": 2.0, "bits_per_byte": 3.0})";

TEST_F(CompareRun, GoesOnAfterCellsThatFailInEveryWay) {
  const CompareOutcome outcome =
      compare(leaves("prenorm-L12-s1", R"({"status": "finished", "val_loss": null})") +  // a NaN
              leaves("prenorm-L12-s2", "[[[") +  // not written by any program
              "*wav-L12-s1) kill -KILL $$;;\n" + leaves("wav-L12-s2", kGood));
  EXPECT_TRUE(outcome.complete);
  using enum CellStatus;
  EXPECT_THAT(statuses(outcome), ::testing::ElementsAre(kFailed, kFailed, kFailed, kFinished));
  for (const std::string& line : said_) EXPECT_EQ(line.find("loss 0.0"), std::string::npos) << line;
  EXPECT_THAT(said_, Contains(HasSubstr("without a finite validation loss")));
  EXPECT_THAT(said_, Contains(HasSubstr("summary.json")));
  EXPECT_THAT(said_, Contains(HasSubstr("exit code 137")));
  const auto document = nlohmann::json::parse(read_file(folder_ / "out/compare.json"));
  EXPECT_TRUE(document.at("cells").at(0).at("val_loss").is_null());
  EXPECT_EQ(document.at("cells").at(0).at("status"), "failed");
  EXPECT_EQ(document.at("rows").size(), 2U);
  const std::string table = terminal_table(make_table(outcome.comparison));
  EXPECT_THAT(table, HasSubstr("0 of 2, 2 failed"));
}

// A cell that has what the measurement wants to know.
std::string trained(const std::string& cell, int parameters) {
  return leaves(cell,
                R"({"status": "finished", "val_loss": 2.0, "vocab_size": 256, "parameters": )" +
                    std::to_string(parameters) + "}");
}

TEST_F(CompareRun, MeasuresOneModelPerLabelAndKeepsTheSpeedOfThoseThatWereTrained) {
  std::vector<std::string> timed;
  measure_speed_ = [&](const std::vector<SpeedJob>& jobs) {
    std::vector<SpeedResult> results;
    for (const SpeedJob& job : jobs) {
      timed.push_back(job.label + " " + job.config.parent_path().filename().string());
      results.push_back({100.0, 5.0, 7, 10, ""});
    }
    return results;
  };
  const CompareOutcome outcome = compare(trained("prenorm-L12-s1", 10) +
                                         trained("prenorm-L12-s2", 10) + trained("wav-L12-s1", 11));
  EXPECT_THAT(timed, ::testing::ElementsAre("prenorm L12 prenorm-L12-s1", "wav L12 wav-L12-s1"));
  ASSERT_EQ(outcome.comparison.speed.size(), 1U);
  EXPECT_EQ(outcome.comparison.speed[0].label, "prenorm");
  EXPECT_EQ(outcome.comparison.speed[0].tokens_per_s, 100.0);
  EXPECT_THAT(said_, Contains("no speed of wav L12: 11 parameters were trained, 10 were timed"));
}

TEST_F(CompareRun, ACellThatCanNotBeStartedIsAFailedCell) {
  config_.compare.seeds = {1};
  fs::create_directories(folder_ / "out/configs/prenorm-L12-s1.log");  // no file can be made there
  const CompareOutcome outcome = compare(leaves("wav-L12-s1", kGood));
  using enum CellStatus;
  EXPECT_THAT(statuses(outcome), ::testing::ElementsAre(kFailed, kFinished));
}

TEST_F(CompareRun, AnOldResultOfAnotherTextIsRefusedBeforeAnyCellStarts) {
  config_.compare.seeds = {1};
  const std::string summary =
      R"({"status": "finished", "val_loss": 2.0, "corpus_sha256": "aa", "corpus_valid_sha256": "bb"})";
  static_cast<void>(compare(leaves("L12-s1", summary)));
  CompareOptions options;
  options.out = folder_ / "out";
  options.stop = [] { return false; };
  options.say = [](const std::string&) {};
  options.program = "/nowhere";
  for (GridCell& cell : cells_) cell.text = "aa cc";
  EXPECT_THROW(static_cast<void>(run_comparison(config_, cells_, options)), UserError);
  for (GridCell& cell : cells_) cell.text = "aa bb";
  EXPECT_TRUE(run_comparison(config_, cells_, options).complete);
}

TEST_F(CompareRun, AnOldResultMayHaveFoundItsTextElsewhereButHasTheSameSettings) {
  config_.compare.seeds = {1};
  static_cast<void>(compare(leaves("L12-s1", kGood)));
  config_.data.train = "/elsewhere/train.txt";
  config_.data.valid = "/elsewhere/valid.txt";
  const CompareOutcome outcome = compare("*) exit 7;;");  // nothing is trained again
  using enum CellStatus;
  EXPECT_THAT(statuses(outcome), ::testing::ElementsAre(kFinished, kFinished));
  config_.optimizer.lr = 0.5;
  EXPECT_THROW(static_cast<void>(compare("*) exit 7;;")), UserError);
}

TEST_F(CompareRun, FinishedCellsAreThoseThatHaveALoss) {
  static_cast<void>(compare(leaves("prenorm-L12-s1", kGood) +
                            leaves("prenorm-L12-s2", R"({"status": "stopped"})") +
                            leaves("wav-L12-s1", R"({"status": "finished", "val_loss": null})")));
  EXPECT_THAT(finished_cells(folder_ / "out", cells_),
              ::testing::ElementsAre(true, false, false, false));
}

TEST_F(CompareRun, AFileOfANewerFormatIsRefusedBeforeAnyCellStarts) {
  static_cast<void>(compare(leaves("s1", kGood)));
  for (const char* file : {"compare.json", "cells/prenorm-L12-s1/env.json"}) {
    const fs::path path = folder_ / "out" / file;
    const std::string before = fs::exists(path) ? read_file(path) : R"({"format": 1})";
    write_file_atomic(path, R"({"format": 2})");
    EXPECT_THROW(static_cast<void>(finished_cells(folder_ / "out", cells_)), UserError) << file;
    write_file_atomic(path, before);
  }
  EXPECT_NO_THROW(static_cast<void>(finished_cells(folder_ / "out", cells_)));
}

TEST_F(CompareRun, ACellThatWasTrainedLongerThanPlannedIsRefusedBeforeAnyCellStarts) {
  config_.compare.seeds = {1};
  static_cast<void>(compare(leaves("L12-s1", kGood)));
  write_file_atomic(folder_ / "out/cells/wav-L12-s1/config.toml",
                    "[model]\nlayers = 12\n[train]\nsteps = 3000\n");
  config_.compare.seeds = {1, 2};
  said_.clear();
  try {
    static_cast<void>(compare(leaves("L12-s2", kGood)));
    ADD_FAILURE() << "a cell of 3000 steps was taken for one of 2000";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("wav-L12-s1"));
    EXPECT_THAT(error.what(), HasSubstr("train.steps"));
  }
  EXPECT_TRUE(said_.empty());
}

TEST_F(CompareRun, NamesATextOnlyWhereAllCellsHaveIt) {
  config_.compare.seeds = {1};
  const auto summary = [](const char* text) {
    return R"({"status": "finished", "val_loss": 2.0, "corpus": "a text", "corpus_valid_sha256": "vv",
               "corpus_sha256": ")" +
           std::string(text) + "\"}";
  };
  const auto corpus = [&] {
    return nlohmann::json::parse(read_file(folder_ / "out/compare.json")).at("corpus");
  };
  static_cast<void>(
      compare(leaves("prenorm-L12-s1", summary("aa")) + leaves("wav-L12-s1", summary("aa"))));
  EXPECT_EQ(corpus().at("sha256"), "aa");
  fs::remove_all(folder_ / "out");
  static_cast<void>(
      compare(leaves("prenorm-L12-s1", summary("aa")) + leaves("wav-L12-s1", summary("bb"))));
  EXPECT_TRUE(corpus().empty());
}

TEST_F(CompareRun, RefusesLinksWhereItWouldWrite) {
  cells_ = expand_grid(config_, catalog());
  const fs::path out = folder_ / "out";
  fs::create_directories(out / "cells");
  fs::create_directories(out / "configs");
  EXPECT_NO_THROW(refuse_links(out, cells_));
  for (const char* name : {"report.html", "compare.json", "cells/wav-L12-s1", ".lock",
                           "configs/prenorm-L12-s2.toml", "configs/wav-L12-s1.log"}) {
    fs::create_symlink(folder_ / "elsewhere", out / name);
    EXPECT_THROW(refuse_links(out, cells_), UserError) << name;
    fs::remove(out / name);
  }
}

// A program whose loss is 1 for the learning rate that it finds in its configuration's name, in its
// text, or 2 for any other.
std::string best_at(const std::string& lr) {
  return "*) if grep -q '^lr = " + lr + "$' \"$2\"; then loss=1; else loss=2; fi;\n" +
         R"(printf '{"status": "finished", "val_loss": %s}' $loss > "$4/summary.json";;)";
}

double lr_of(const Comparison& comparison, std::size_t i) {
  return comparison.cells.at(i).lr.value();
}

TEST_F(CompareRun, TheBestRateOfTheFirstSeedGoesToTheOthers) {
  config_.compare.lrs = {1e-3, 3e-3, 1e-2};
  config_.compare.seeds = {1, 2, 3};
  for (const int64_t jobs : {1, 3}) {
    jobs_ = jobs;
    fs::remove_all(folder_ / "out");
    const CompareOutcome outcome = compare(best_at("0.003"));
    ASSERT_EQ(outcome.comparison.cells.size(), 10U);
    for (const std::size_t i : {3, 4, 8, 9}) {
      EXPECT_EQ(lr_of(outcome.comparison, i), 3e-3) << i;
      EXPECT_THAT(read_file(folder_ / "out/configs" / (cells_[i].folder + ".toml")),
                  HasSubstr("\nlr = 0.003\n"));
    }
    const Table table = make_table(outcome.comparison);
    EXPECT_EQ(table.compared, 2U);
    EXPECT_EQ(table.rows[0].seeds, 2U);  // not the one on which the rate was chosen
    EXPECT_FALSE(table.rates.at(0).on_own_seed);
  }
}

TEST_F(CompareRun, OneSeedReportsTheBestRateOnItself) {
  config_.compare.lrs = {1e-3, 3e-3, 1e-2};
  config_.compare.seeds = {1};
  const CompareOutcome outcome = compare(best_at("0.01"));
  const Table table = make_table(outcome.comparison);
  ASSERT_EQ(table.compared, 2U);
  EXPECT_EQ(table.rows[0].loss, 1.0);
  EXPECT_EQ(table.rows[0].lr, 1e-2);
  EXPECT_TRUE(table.rates.at(0).on_own_seed);
  EXPECT_EQ(table.rates.at(0).end_of_grid(), 1);
}

TEST_F(CompareRun, ARowWhoseRatesAllDivergeIsARow) {
  config_.compare.lrs = {1e-3, 3e-3};
  const CompareOutcome outcome =
      compare(R"(*prenorm*) echo '{"status": "diverged"}' > "$4/summary.json"; exit 1;;)"
              "\n" +
              best_at("0.001"));
  const Table table = make_table(outcome.comparison);
  ASSERT_EQ(table.compared, 2U);
  EXPECT_EQ(table.rows[0].diverged, 1U);
  EXPECT_EQ(table.rows[1].loss, 1.0);
  EXPECT_THAT(said_, Contains(HasSubstr("none of its learning rates has a loss")));
}

TEST_F(CompareRun, AResumedGridKeepsTheRatesThatItChose) {
  config_.compare.lrs = {1e-3, 3e-3};
  static_cast<void>(compare(best_at("0.003")));
  said_.clear();
  const CompareOutcome again = compare("*) exit 7;;");  // nothing is trained again
  EXPECT_EQ(lr_of(again.comparison, 2), 3e-3);
  for (const std::string& line : said_) EXPECT_THAT(line, HasSubstr("is there"));
}

TEST_F(CompareRun, CellsAreTrainedSideBySide) {
  jobs_ = 4;
  // Each cell waits until all four have begun: one after the other they would wait for ever.
  const std::string body =
      "*) touch \"$4/../../$(basename \"$4\").begun\"; n=0;\n"
      "while [ $(ls \"$4/../..\" | grep -c begun) -lt 4 ] && [ $n -lt 100 ]; do sleep 0.1; "
      "n=$((n+1)); done;\n"
      "[ $n -lt 100 ] && echo '" +
      std::string(kGood) + "' > \"$4/summary.json\";;";
  using enum CellStatus;
  EXPECT_THAT(statuses(compare(body)),
              ::testing::ElementsAre(kFinished, kFinished, kFinished, kFinished));
}

TEST_F(CompareRun, OneCellIsTrainedAndTheGridsFilesAreLeftAlone) {
  config_.compare.lrs = {1e-3, 3e-3};
  cells_ = expand_grid(config_, catalog());
  CompareOptions options;
  options.out = folder_ / "out";
  make_folders(options.out);
  options.program = program(best_at("0.003")).string();
  options.stop = [] { return false; };
  options.say = [](const std::string&) {};
  try {
    static_cast<void>(train_one_cell(config_, cells_, 2, options));
    ADD_FAILURE() << "a cell was trained whose learning rate is not known";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("prenorm-lr0.001-L12-s1"));
  }
  for (const std::size_t i : {0, 1, 2}) {
    EXPECT_EQ(train_one_cell(config_, cells_, i, options).status, CellStatus::kFinished);
  }
  EXPECT_FALSE(fs::exists(options.out / "compare.json"));
  const CompareOutcome rest = compare(best_at("0.003"));  // collects
  EXPECT_EQ(lr_of(rest.comparison, 2), 3e-3);
  EXPECT_TRUE(fs::exists(options.out / "compare.json"));
  EXPECT_TRUE(fs::exists(options.out / "rows.csv"));
}

}  // namespace
}  // namespace wavroute
