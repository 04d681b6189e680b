#include "report/run_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "io/file.h"
#include "run_folder_maker.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The text of the UserError that `call` throws, with its hint.
template <typename Call>
std::string user_error(Call call) {
  try {
    call();
  } catch (const UserError& error) {
    EXPECT_FALSE(error.hint().empty());
    return error.what();
  }
  ADD_FAILURE() << "expected a UserError";
  return {};
}

TEST(RunData, RowsWithValidationGoToBothCurves) {
  const TemporaryFolder folder;
  const RunData run = read_run(make_run(folder.path() / "run"));
  ASSERT_EQ(run.train.size(), 4U);
  ASSERT_EQ(run.validation.size(), 2U);
  EXPECT_EQ(run.train[1].step, 2);
  EXPECT_EQ(run.train[1].loss, 4.5);
  EXPECT_EQ(run.validation[0].step, 2);
  EXPECT_EQ(run.validation[1].loss, 3.0);
  EXPECT_EQ(run.validation[1].bits_per_byte, 4.3);
  EXPECT_EQ(run.status, "finished");
  EXPECT_EQ(run.tokens_per_s, 240.0);  // the summary's, not the median of the rows
}

TEST(RunData, RowsWithLayersAreCurvesOfTheirOwn) {
  const TemporaryFolder folder;
  const auto run = make_run(folder.path() / "run");
  const std::string rows = testing::get(run / "metrics.jsonl");
  write(run / "metrics.jsonl",
        rows + R"({"step":4,"layers":{"stream":[1.5,null],"update":[0.5],"entropy":[null,0.25]}})" +
            "\n" + R"({"step":2,"layers":{"stream":[1.0,2.0],"update":[0.25]}})" + "\n");
  const RunData data = read_run(run);
  EXPECT_EQ(data.train.size(), 4U);
  ASSERT_EQ(data.layers.size(), 2U);  // by step
  EXPECT_EQ(data.layers[0].step, 2);
  EXPECT_EQ(data.layers[0].stream, (std::vector<std::optional<double>>{1.0, 2.0}));
  EXPECT_EQ(data.layers[1].stream, (std::vector<std::optional<double>>{1.5, std::nullopt}));
  EXPECT_EQ(data.layers[1].entropy, (std::vector<std::optional<double>>{std::nullopt, 0.25}));
  write(run / "metrics.jsonl", rows + R"({"step":4,"layers":{"stream":"no list"}})" + "\n");
  EXPECT_THAT(user_error([&] { (void)read_run(run); }),
              AllOf(HasSubstr("a list at layers.stream"), HasSubstr("metrics.jsonl:6")));
}

TEST(RunData, ATokenizerOfAFileIsKnownByItsHashNotItsPlace) {
  const TemporaryFolder folder;
  const auto run_with = [&](const std::string& name, const std::string& path, const char* hash) {
    const auto run = make_run(folder.path() / name);
    auto summary = nlohmann::json::parse(testing::get(run / "summary.json"));
    summary.update({{"tokenizer", "bpe"}, {"tokenizer_sha256", hash}, {"vocab_size", 300}});
    write(run / "summary.json", summary.dump());
    write(run / "config.toml", "[data]\ntokenizer = \"" + path + "\"\n");
    return read_run(run);
  };
  const RunData a = run_with("a", "/x/t.json", "0123456789"),
                b = run_with("b", "/y.json", "0123456789");
  EXPECT_EQ(a.measure.tokenizer, "bpe 01234567/300");
  EXPECT_EQ(a.settings, b.settings);
  EXPECT_NE(run_with("c", "/x/t.json", "ff23456789").measure.tokenizer, a.measure.tokenizer);
}

TEST(RunData, UnfinishedRunIsDerivedFromItsMetricsAndConfiguration) {
  const TemporaryFolder folder;
  make_run(folder.path());
  std::filesystem::remove(folder.path() / "summary.json");
  const RunData run = read_run(folder.path());
  EXPECT_EQ(run.status, "unfinished");
  EXPECT_EQ(run.scheme, "wav");
  EXPECT_EQ(run.depth, 12);
  EXPECT_EQ(run.steps, 4);
  EXPECT_EQ(run.val_loss, 3.0);
  EXPECT_EQ(run.tokens_per_s, 250.0);  // upper median of 100, 200, 250, 300
  EXPECT_EQ(run.peak_rss_bytes, 3000.0);
}

TEST(RunData, SchemeComesFromTheCheckpointWithTheHighestStep) {
  const TemporaryFolder folder;
  write(folder.path() / "metrics.jsonl", "{\"step\":1,\"loss\":5}\n");
  const auto checkpoint = [&](const char* name, const char* scheme) {
    write(folder.path() / "checkpoints" / name / "config.json",
          std::string(R"({"num_hidden_layers":24,"residual":{"scheme":")") + scheme + "\"}}");
  };
  checkpoint("step_900", "rezero");
  checkpoint("step_1000", "haares");
  checkpoint(".tmp-step_2000-17", "act");
  const RunData run = read_run(folder.path());
  EXPECT_EQ(run.scheme, "haares");
  EXPECT_EQ(run.label, "haares");
  EXPECT_EQ(run.depth, 24);
}

TEST(RunData, ATornLastLineIsLeftOut) {
  const TemporaryFolder folder;
  write(folder.path() / "metrics.jsonl", "{\"step\":1,\"loss\":5.0}\n{\"step\":2,\"lo");
  EXPECT_EQ(read_run(folder.path()).train.size(), 1U);
}

TEST(RunData, AWholeLastLineWithoutItsNewlineCounts) {
  const TemporaryFolder folder;
  write(folder.path() / "metrics.jsonl", "{\"step\":1,\"loss\":5.0}\n{\"step\":2,\"loss\":4.0}");
  EXPECT_EQ(read_run(folder.path()).train.size(), 2U);
}

TEST(RunData, ABrokenLineInTheMiddleIsAnErrorWithFileAndLine) {
  const TemporaryFolder folder;
  write(folder.path() / "metrics.jsonl",
        "{\"step\":1,\"loss\":5.0}\n\n{\"step\":2,\"lo\n{\"step\":3,\"loss\":3.0}\n");
  const auto what = user_error([&] { (void)read_run(folder.path()); });
  EXPECT_THAT(what, HasSubstr((folder.path() / "metrics.jsonl").string() + ":3"));
}

TEST(RunData, AConfigurationThatIsNoFileOfItsSizeIsRefusedInWords) {
  const TemporaryFolder folder;
  make_run(folder.path());
  const auto config = folder.path() / "config.toml";
  std::filesystem::resize_file(config, (1 << 20) + 1);
  EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }), HasSubstr("given 1048577"));
  std::filesystem::remove(config);
  ASSERT_EQ(::mkfifo(config.c_str(), 0600), 0);
  EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }),
              HasSubstr("expected a regular file, given a device or pipe"));
}

TEST(RunData, ARowWithoutAStepIsAnErrorWithFileAndLine) {
  const TemporaryFolder folder;
  write(folder.path() / "metrics.jsonl", "{\"step\":1,\"loss\":5.0}\n[1, 2]\n");
  EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }), HasSubstr("metrics.jsonl:2"));
}

TEST(RunData, BrokenJsonAndTomlFilesAreErrorsWithFileAndLine) {
  const TemporaryFolder folder;
  make_run(folder.path());
  write(folder.path() / "routing.json", "{\n\"sublayers\": [\n{]\n}");
  EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }), HasSubstr("routing.json:3"));
  std::filesystem::remove(folder.path() / "routing.json");
  write(folder.path() / "config.toml", "[model]\nlayers = = 3\n");
  EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }), HasSubstr("config.toml:2"));
}

// Applies `summary` over that of make_run.
RunData with_summary(const TemporaryFolder& folder, const nlohmann::json& summary) {
  make_run(folder.path());
  auto document = nlohmann::json::parse(R"({"scheme": "wav", "layers": 12, "seed": 1, "steps": 4,
    "status": "finished", "val_loss": 3.0, "bits_per_byte": 4.3})");
  document.update(summary);
  write(folder.path() / "summary.json", document.dump());
  return read_run(folder.path());
}

TEST(RunData, ALossThatIsNotFiniteIsNoLossAndTheRunDiverged) {
  const TemporaryFolder folder;
  for (const nlohmann::json& loss : {nlohmann::json(), nlohmann::json("nan")}) {
    const RunData run = with_summary(folder, {{"val_loss", loss}});
    EXPECT_FALSE(run.val_loss.has_value());
    EXPECT_FALSE(run.bits_per_byte.has_value());
    EXPECT_EQ(run.status, "diverged");
  }
}

TEST(RunData, TheLastEvaluationCountsNotTheLastFiniteOne) {
  const TemporaryFolder folder;
  write(folder.path() / "metrics.jsonl",
        "{\"step\":2,\"val_loss\":2.0}\n{\"step\":4,\"val_loss\":null}\n");
  write(folder.path() / "summary.json", R"({"status": "finished"})");
  const RunData run = read_run(folder.path());
  EXPECT_FALSE(run.val_loss.has_value());
  EXPECT_EQ(run.status, "diverged");
}

TEST(RunData, ARunThatWasNeverEvaluatedIsFinishedWithoutALoss) {
  const TemporaryFolder folder;
  write(folder.path() / "metrics.jsonl", "{\"step\":2,\"loss\":2.0}\n");
  write(folder.path() / "summary.json", R"({"status": "finished", "val_loss": null})");
  const RunData run = read_run(folder.path());
  EXPECT_EQ(run.status, "finished");
  EXPECT_FALSE(run.val_loss.has_value());
}

TEST(RunData, ARunThatGoesOnBeyondItsSummaryIsRunning) {
  const TemporaryFolder folder;
  const FileLock training(folder.path());
  EXPECT_EQ(with_summary(folder, {{"steps", 3}}).status, "running");  // metrics reach step 4
  EXPECT_EQ(with_summary(folder, {{"steps", 4}}).status, "finished");
  write(folder.path() / "config.toml", "[train]\nsteps = 8\n");
  EXPECT_EQ(read_run(folder.path()).status, "running");
}

TEST(RunData, ARunThatNobodyTrainsIsStoppedWhateverItsSummarySays) {
  const TemporaryFolder folder;
  {
    const FileLock training(folder.path());
    EXPECT_EQ(with_summary(folder, {{"status", "running"}}).status, "running");
  }  // killed: it left its summary as it was
  EXPECT_EQ(read_run(folder.path()).status, "stopped");
  EXPECT_EQ(with_summary(folder, {{"status", "finished"}}).status, "finished");
  EXPECT_EQ(with_summary(folder, {{"steps", 3}}).status, "stopped");  // killed in its second part
}

TEST(RunData, ARunOfANewerFormatIsRefused) {
  const TemporaryFolder folder;
  make_run(folder.path());
  write(folder.path() / "env.json", R"({"format": 1})");
  EXPECT_NO_THROW((void)read_run(folder.path()));
  write(folder.path() / "env.json", R"({"format": 2})");
  EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }),
              AllOf(HasSubstr("format 1 at most"), HasSubstr(folder.path().string())));
}

TEST(RunData, TheFirstPlanOfAnExtendedRunIsASettingOfIt) {
  const TemporaryFolder folder;
  make_run(folder.path());
  const auto settings = [&](const nlohmann::json& summary) {
    (void)with_summary(folder, summary);
    write(folder.path() / "config.toml", "[train]\nsteps = 4\n");
    return read_run(folder.path()).settings;
  };
  const RunSettings planned = settings({{"schedule_steps", 4}});
  EXPECT_EQ(planned, settings(nlohmann::json::object()));  // of before the summary said so
  RunSettings extended = settings({{"schedule_steps", 2}});
  EXPECT_EQ(extended.at("schedule_steps"), "2");
  extended.erase("schedule_steps");
  EXPECT_EQ(extended, planned);
}

TEST(RunData, SettingsAndSeedComeFromTheConfiguration) {
  const TemporaryFolder folder;
  make_run(folder.path());
  write(folder.path() / "config.toml",
        "[model]\nlayers = 24\n[train]\nseed = 7\n[residual]\nscheme = \"haares\"\n");
  std::filesystem::remove(folder.path() / "summary.json");
  const RunData run = read_run(folder.path());
  EXPECT_EQ(run.seed, 7);
  EXPECT_EQ(run.depth, 24);
  EXPECT_EQ(run.scheme, "haares");
  EXPECT_EQ(run.settings.at("residual.scheme"), "\"haares\"");
  EXPECT_FALSE(run.settings.contains("train.seed"));
}

TEST(RunData, RowsWithWrongTypesAreErrorsWithFileAndLine) {
  const TemporaryFolder folder;
  for (const char* row : {"{\"step\":1.5}", "{\"step\":-1}", "{\"step\":1,\"loss\":\"x\"}",
                          "{\"step\":1,\"val_loss\":[]}", "{\"step\":18446744073709551615}",
                          "{\"step\":1,\"loss\":1e999}", "[[[[[[[[[[1]]]]]]]]]]", "3"}) {
    write(folder.path() / "metrics.jsonl", "{\"step\":1,\"loss\":5.0}\n" + std::string(row) + "\n");
    EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }), HasSubstr("metrics.jsonl:2"))
        << row;
  }
}

TEST(RunData, FilesOfAnotherProgramDoNotStopAReport) {
  const TemporaryFolder folder;
  make_run(folder.path());
  for (const char* text : {"[]", "3", "{\"status\": 3, \"layers\": 1e300, \"seed\": []}",
                           "{\"val_loss\": {}, \"scheme\": null, \"layers\": -5}"}) {
    for (const char* name : {"summary.json", "env.json", "routing.json"}) {
      write(folder.path() / name, text);
    }
    const RunData run = read_run(folder.path());
    EXPECT_EQ(run.depth, 12) << text;  // of config.toml
  }
}

TEST(RunData, AFolderThatIsNoRunIsAnError) {
  const TemporaryFolder folder;
  EXPECT_FALSE(is_run_folder(folder.path()));
  EXPECT_THAT(user_error([&] { (void)read_run(folder.path()); }),
              HasSubstr(folder.path().string()));
}

}  // namespace
}  // namespace wavroute
