#include "io/jsonl.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using nlohmann::ordered_json;
using testing::get;
using testing::names_in;
using testing::put;
using testing::TemporaryFolder;

TEST(JsonlWriter, AppendsOneLinePerObjectInTheOrderOfItsKeys) {
  const TemporaryFolder folder;
  put(folder / "m", "{\"step\":1}\n");
  JsonlWriter writer(folder / "m");
  writer.append({{"step", 2}, {"loss", 0.5}});
  EXPECT_EQ(get(folder / "m"), "{\"step\":1}\n{\"step\":2,\"loss\":0.5}\n");  // no flush needed
  writer.append({{"text", "a\nb"}});
  EXPECT_EQ(get(folder / "m"), "{\"step\":1}\n{\"step\":2,\"loss\":0.5}\n{\"text\":\"a\\nb\"}\n");
}

TEST(JsonlWriter, RefusesANumberThatJsonHasNoWordForAndTakesBytesThatAreNoUtf8) {
  const TemporaryFolder folder;
  JsonlWriter writer(folder / "m");
  EXPECT_THROW(writer.append({{"loss", NAN}}), Failure);
  EXPECT_EQ(get(folder / "m"), "");
  writer.append({{"sample", "\xff"}});
  EXPECT_EQ(ordered_json::parse(get(folder / "m"))["sample"], "\xef\xbf\xbd");
}

TEST(JsonlWriter, KeepsEveryBitOfADouble) {
  const TemporaryFolder folder;
  const double loss = 0.1 + 0.2;
  JsonlWriter(folder / "m").append({{"loss", loss}});
  EXPECT_EQ(ordered_json::parse(get(folder / "m"))["loss"].get<double>(), loss);
}

TEST(JsonlLines, AreNumberedAndLeaveOutBlankOnes) {
  const auto lines = jsonl_lines("{}\n \t\n\n[1]\n{\"a");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[1].text, "[1]");
  EXPECT_EQ(lines[1].number, 4U);
  EXPECT_TRUE(lines[1].is_whole);
  EXPECT_EQ(lines[2].text, "{\"a");
  EXPECT_FALSE(lines[2].is_whole);
}

TEST(MetricsTotals, AreOfTheRowsThatHaveATime) {
  const TemporaryFolder folder;
  EXPECT_EQ(metrics_totals(folder / "m").steps, 0);
  put(folder / "m",
      "{\"step_ms\":2.5,\"peak_rss_bytes\":7}\n{\"val_loss\":1}\n{\"step_ms\":1.5}\n[]\n"
      "{\"step_ms\":9,");
  const MetricsTotals totals = metrics_totals(folder / "m");
  EXPECT_EQ(totals.steps, 2);
  EXPECT_EQ(totals.ms, 4.0);
  EXPECT_EQ(totals.peak_bytes, 7);
}

TEST(CutMetrics, RemovesLaterStepsAndATornLastLine) {
  const TemporaryFolder folder;
  put(folder / "m", "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":2,\"lo");
  cut_metrics(folder / "m", 2);
  EXPECT_EQ(get(folder / "m"), "{\"step\":1}\n{\"step\":2}\n");
  EXPECT_EQ(names_in(folder.path()).size(), 1U);
}

TEST(CutMetrics, KeepsAWholeLastLineThatLacksOnlyItsEnd) {
  const TemporaryFolder folder;
  put(folder / "m", "{\"step\":1}\n{\"step\":2}");
  cut_metrics(folder / "m", 2);
  EXPECT_EQ(get(folder / "m"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(CutMetrics, RemovesBlocksThatALostWriteLeftBlank) {
  const TemporaryFolder folder;
  put(folder / "m", "{\"step\":1}\n" + std::string(20, '\0') + "\n{\"step\":2}\n[3]\n\n");
  cut_metrics(folder / "m", 5);
  EXPECT_EQ(get(folder / "m"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(CutMetrics, RemovesLinesThatNoReaderTakes) {
  const TemporaryFolder folder;
  const std::string deep(1'000'000, '[');
  put(folder / "m", "{\"step\":1}\n{\"x\":" + deep + "\n{\"step\":1e999}\n{\"step\":2}\n");
  cut_metrics(folder / "m", 5);
  EXPECT_EQ(get(folder / "m"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(CutMetrics, ToStepZeroLeavesAnEmptyFileAndAMissingOneMissing) {
  const TemporaryFolder folder;
  put(folder / "m", "{\"step\":1}\n");
  cut_metrics(folder / "m", 0);
  EXPECT_TRUE(std::filesystem::exists(folder / "m"));
  EXPECT_EQ(get(folder / "m"), "");
  cut_metrics(folder / "none", 0);
  EXPECT_FALSE(std::filesystem::exists(folder / "none"));
}

TEST(CutMetrics, AFileWithNothingToCutIsNotWrittenAgain) {
  const TemporaryFolder folder;
  put(folder / "m", "{\"step\":1,   \"loss\":2.50}\n");
  const auto before = std::filesystem::last_write_time(folder / "m");
  std::filesystem::last_write_time(folder / "m", before - std::chrono::hours(1));
  cut_metrics(folder / "m", 1);
  EXPECT_EQ(std::filesystem::last_write_time(folder / "m"), before - std::chrono::hours(1));
  EXPECT_EQ(get(folder / "m"), "{\"step\":1,   \"loss\":2.50}\n");
}

}  // namespace
}  // namespace wavroute
