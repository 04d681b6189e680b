#include "bench/step_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

StepResult sample() {
  StepResult r;
  r.label = "wav bf16", r.provider = "wavroute", r.scheme = "wav", r.precision = "bf16";
  r.layers = 48, r.width = 256, r.batch = 4, r.context = 128, r.parameters = 99;
  r.ms_p20 = 1.5, r.ms_p50 = 2, r.ms_p80 = 2.25, r.first_ms = 3000;
  r.tokens_per_s = 256000, r.peak_rss_bytes = 5'000'000'000, r.percent_of_peak = 61.25;
  r.ratio_to_first = 0.5;
  return r;
}

StepResult failed() {
  StepResult r;
  r.label = "haares", r.provider = "eager", r.scheme = "haares", r.error = "it broke";
  return r;
}

class StepCsv : public ::testing::Test {
 protected:
  const testing::TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path(), file_ = folder_ / "rows.csv";
  CsvContext context_{"2026-01-02T03:04:05Z", "abc1234", "A \"fast\" CPU, 2 GHz", 2};
};

TEST_F(StepCsv, RowsAreAppendedUnderOneHeader) {
  append_step_csv(file_, context_, std::vector{sample(), failed()});
  append_step_csv(file_, context_, std::vector{sample()});
  const std::string row =
      "2026-01-02T03:04:05Z,abc1234,\"A \"\"fast\"\" CPU, 2 GHz\",2,wavroute,wav,bf16,48,256,4,128,"
      "1.500,2.000,2.250,256000.0,5000000000,61.25,3000.000,0\n";
  EXPECT_EQ(testing::get(file_),
            "date,commit,machine,cores,provider,scheme,precision,layers,width,batch,context,ms_p20,"
            "ms_p50,ms_p80,tokens_per_s,peak_rss_bytes,percent_of_peak,first_ms,busy\n" +
                row + row);
}

TEST_F(StepCsv, AResultBesideBusyProcessesHasARowOfItsOwn) {
  auto shared = sample();
  shared.busy = 3;
  shared.busy_ms_p20 = 3, shared.busy_ms_p50 = 4, shared.busy_ms_p80 = 5;
  append_step_csv(file_, context_, std::vector{shared});
  EXPECT_THAT(testing::get(file_),
              HasSubstr("1.500,2.000,2.250,256000.0,5000000000,61.25,3000.000,0\n"));
  EXPECT_THAT(testing::get(file_),
              HasSubstr("3.000,4.000,5.000,128000.0,5000000000,30.62,3000.000,3\n"));
}

TEST_F(StepCsv, AFileOfAnEarlierVersionGetsTheColumnsThatItLacks) {
  const std::string before =
      "date,commit,machine,cores,provider,scheme,precision,layers,width,batch,context,ms_p20,"
      "ms_p50,ms_p80,tokens_per_s,peak_rss_bytes,percent_of_peak,first_ms";
  std::ofstream(file_) << before << "\nold,row,\"a \"\"b\"\"\nc\",2\n";
  append_step_csv(file_, context_, std::vector{sample()});
  append_step_csv(file_, context_, std::vector{sample()});
  std::ifstream in(file_);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[0], before + ",busy");
  EXPECT_EQ(lines[1] + "|" + lines[2], "old,row,\"a \"\"b\"\"|c\",2,");
  EXPECT_THAT(lines[3], ::testing::EndsWith(",61.25,3000.000,0"));
  EXPECT_EQ(lines[3], lines[4]);
}

TEST_F(StepCsv, ALinkToAFileOfAnEarlierVersionStaysALink) {
  const fs::path target = folder_ / "elsewhere.csv";
  std::ofstream(target) << "date,commit,machine,cores,provider,scheme,precision,layers,width,batch,"
                           "context,ms_p20,ms_p50,ms_p80,tokens_per_s,peak_rss_bytes,"
                           "percent_of_peak,first_ms\n";
  fs::create_symlink("elsewhere.csv", file_);
  append_step_csv(file_, context_, std::vector{sample()});
  EXPECT_TRUE(fs::is_symlink(fs::symlink_status(file_)));
  EXPECT_THAT(testing::get(target), HasSubstr("first_ms,busy\n2026"));
}

TEST_F(StepCsv, AFileOfSomethingElseIsLeftAsItIs) {
  std::ofstream(file_) << "step,loss\n1,2\n";
  EXPECT_THROW(append_step_csv(file_, context_, std::vector{sample()}), UserError);
  EXPECT_EQ(testing::get(file_), "step,loss\n1,2\n");
}

TEST_F(StepCsv, AMissingFolderIsAUserError) {
  EXPECT_THROW(append_step_csv(folder_ / "no" / "rows.csv", context_, std::vector{sample()}),
               UserError);
}

TEST_F(StepCsv, AFullDiskIsAFailure) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full here";
  EXPECT_THROW(append_step_csv("/dev/full", context_, std::vector{sample()}), Failure);
}

TEST(StepJson, HasTheDocumentedFields) {
  const auto json = step_json(sample());
  EXPECT_EQ(json["scheme"], "wav");
  EXPECT_EQ(json["provider"], "wavroute");
  EXPECT_EQ(json["precision"], "bf16");
  EXPECT_EQ(json["layers"], 48);
  EXPECT_EQ(json["width"], 256);
  EXPECT_EQ(json["batch"], 4);
  EXPECT_EQ(json["context"], 128);
  EXPECT_EQ(json["ms_p20"], 1.5);
  EXPECT_EQ(json["ms_p50"], 2.0);
  EXPECT_EQ(json["ms_p80"], 2.25);
  EXPECT_EQ(json["tokens_per_s"], 256000.0);
  EXPECT_EQ(json["peak_rss_bytes"], 5'000'000'000);
  EXPECT_EQ(json["percent_of_peak"], 61.25);
}

TEST(StepJson, WhatWasNotMeasuredIsNullAndAFailureSaysWhy) {
  auto result = sample();
  result.percent_of_peak.reset();
  EXPECT_TRUE(step_json(result)["percent_of_peak"].is_null());
  EXPECT_EQ(step_json(failed())["error"], "it broke");
  EXPECT_FALSE(step_json(failed()).contains("ms_p50"));
}

TEST(StepTable, StepsBesideBusyProcessesStandBesideTheQuietOnes) {
  auto shared = sample();
  EXPECT_THAT(step_table(std::vector{shared}), Not(HasSubstr("busy")));
  EXPECT_EQ(step_json(shared)["busy"], 0);
  shared.busy = 1, shared.busy_ms_p50 = 4.5, shared.busy_ratio = 2.25;
  std::istringstream lines(step_table(std::vector{shared}));
  std::string header, first;
  std::getline(lines, header), std::getline(lines, first);
  EXPECT_THAT(header, HasSubstr("busy ms"));
  EXPECT_EQ(header.size(), first.size());
  EXPECT_THAT(first, HasSubstr(" 2.0 "));
  EXPECT_THAT(first, HasSubstr(" 4.5 "));
  EXPECT_THAT(first, HasSubstr(" 2.25"));
  const auto json = step_json(shared);
  EXPECT_EQ(json["busy"], 1);
  EXPECT_EQ(json["ms_p50"], 2.0);
  EXPECT_EQ(json["busy_ms_p50"], 4.5);
  EXPECT_EQ(json["busy_ratio"], 2.25);
}

TEST(StepTable, LinesAreAlignedAndFailuresAreShown) {
  auto slow = sample();
  slow.scheme = "block_layerscale", slow.ratio_to_first.reset();
  std::istringstream lines(step_table(std::vector{sample(), slow, failed()}));
  std::string header, first, second, third;
  std::getline(lines, header), std::getline(lines, first);
  std::getline(lines, second), std::getline(lines, third);
  EXPECT_EQ(header.size(), first.size());
  EXPECT_EQ(header.size(), second.size());
  EXPECT_THAT(first, HasSubstr(" 0.500 "));
  EXPECT_THAT(first, HasSubstr(" 5.00 "));
  EXPECT_THAT(first, HasSubstr(" 61.2"));
  EXPECT_THAT(second, Not(HasSubstr("0.500")));
  EXPECT_THAT(third, HasSubstr("failed: it broke"));
}

}  // namespace
}  // namespace wavroute
