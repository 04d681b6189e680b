#include "bench/step_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kPlenty = 1'000'000;

class StepBench : public ::testing::Test {
 protected:
  StepJob job(const std::string& name, std::map<std::string, std::string> env = {}) const {
    env["FAKE_NAME"] = name;
    env["FAKE_LOG"] = log_.string();
    return {name, "fake", name + "-scheme", {"sh", FAKE_WORKER}, env, 0};
  }

  // The names of the workers in the order in which they stepped: "ABAB".
  std::string order() const {
    std::ifstream in(log_);
    std::string names;
    for (std::string line; std::getline(in, line);) names += line;
    return names;
  }

  const testing::TemporaryFolder folder_{"wavroute bench "};
  const std::filesystem::path log_ = folder_ / "steps";
};

StepPlan plan(int warmup, int rounds, uint64_t limit = kPlenty) {
  StepPlan plan;
  plan.warmup = warmup;
  plan.rounds = rounds;
  plan.memory_limit = limit;
  return plan;
}

TEST_F(StepBench, StepsTheWorkersInTurn) {
  const std::vector jobs = {job("A"), job("B"), job("C")};
  const auto results = measure_steps(jobs, plan(2, 3));
  EXPECT_EQ(order(), "ABCABCABCABCABC");
  for (const auto& result : results) EXPECT_EQ(result.error, "");
}

TEST_F(StepBench, QuantilesLeaveWarmUpOutAndKeepTheFirstStepApart) {
  const std::vector jobs = {job("A", {{"FAKE_MS", "9000 800 40 10 30 20 50"}})};
  const auto result = measure_steps(jobs, plan(2, 5))[0];
  EXPECT_DOUBLE_EQ(result.first_ms, 9000);
  EXPECT_DOUBLE_EQ(result.ms_p20, 18);
  EXPECT_DOUBLE_EQ(result.ms_p50, 30);
  EXPECT_DOUBLE_EQ(result.ms_p80, 42);
  EXPECT_DOUBLE_EQ(result.tokens_per_s, 2 * 50 / 0.030);
  EXPECT_DOUBLE_EQ(result.loss, 2.5);
}

TEST_F(StepBench, TakesWhatTheWorkerSaysOfItself) {
  const std::vector jobs = {job("A", {{"FAKE_BYTES", "4321"}, {"FAKE_PRECISION", "bf16"}})};
  const auto result = measure_steps(jobs, plan(1, 1))[0];
  EXPECT_EQ(result.label, "A");
  EXPECT_EQ(result.scheme, "A-scheme");
  EXPECT_EQ(result.precision, "bf16");
  EXPECT_EQ(result.layers, 3);
  EXPECT_EQ(result.width, 8);
  EXPECT_EQ(result.parameters, 1234);
  EXPECT_EQ(result.peak_rss_bytes, 4321U);
}

TEST_F(StepBench, PercentOfPeakGoesByTheBestProductOfTheSamePrecision) {
  // 3e9 operations in 10 ms are 300 Gflop/s: half of the best fp32 product, 600.
  const std::vector jobs = {job("A", {{"FAKE_FLOPS", "3e9"}, {"FAKE_GFLOPS", "500"}}),
                            job("B", {{"FAKE_GFLOPS", "600"}}),
                            job("C", {{"FAKE_GFLOPS", "9000"}, {"FAKE_PRECISION", "bf16"}})};
  const auto results = measure_steps(jobs, plan(1, 2));
  EXPECT_NEAR(results[0].percent_of_peak.value(), 50, 1e-9);
  EXPECT_FALSE(results[1].percent_of_peak.has_value());  // no FLOPs given
}

TEST_F(StepBench, RatioIsTheThroughputOverTheFirstJobs) {
  const std::vector jobs = {job("A", {{"FAKE_MS", "20"}}), job("B", {{"FAKE_MS", "25"}})};
  const auto results = measure_steps(jobs, plan(1, 3));
  EXPECT_DOUBLE_EQ(results[0].ratio_to_first.value(), 1.0);
  EXPECT_DOUBLE_EQ(results[1].ratio_to_first.value(), 0.8);
}

TEST_F(StepBench, RatioIsTheMedianOverRoundsOfBoth) {
  // After the first step 10, 20, 60 against 10, 40, 30: 1, 0.5, 2; between medians it were 2 / 3.
  const std::vector jobs = {job("A", {{"FAKE_MS", "1 10 20 60"}}),
                            job("B", {{"FAKE_MS", "1 10 40 30"}})};
  EXPECT_DOUBLE_EQ(measure_steps(jobs, plan(1, 3))[1].ratio_to_first.value(), 1.0);
}

TEST_F(StepBench, EachRoundIsQuietFirstAndThenBesideBusyProcesses) {
  auto beside = plan(1, 3);
  beside.busy = 2;
  const std::vector jobs = {job("A", {{"FAKE_MS", "stopped"}}),
                            job("B", {{"FAKE_MS", "9 10 30 20 20 30 40"}})};
  const auto results = measure_steps(jobs, beside);
  EXPECT_EQ(order(),
            "AB"
            "ABAB"
            "ABAB"
            "ABAB");
  EXPECT_EQ(results[0].busy, 2);
  EXPECT_DOUBLE_EQ(results[0].ms_p80, 3);  // both were stopped in every quiet step
  EXPECT_DOUBLE_EQ(results[0].ms_p20, 3);
  EXPECT_DOUBLE_EQ(results[0].busy_ms_p80, 1);  // none did in the others
  EXPECT_DOUBLE_EQ(results[0].busy_ms_p20, 1);
  EXPECT_DOUBLE_EQ(results[1].ms_p50, 20);
  EXPECT_DOUBLE_EQ(results[1].busy_ms_p50, 30);
  EXPECT_DOUBLE_EQ(results[1].busy_ratio, 4.0 / 3);  // of 3, 1 and 4 / 3: the rounds' median
}

TEST_F(StepBench, WithoutBusyProcessesNoStepIsTakenTwice) {
  const auto results = measure_steps(std::vector{job("A")}, plan(1, 2));
  EXPECT_EQ(order(), "AAA");
  EXPECT_EQ(results[0].busy, 0);
}

TEST_F(StepBench, AJobDoesNotGetWhatItUnsets) {
  ASSERT_EQ(::setenv("FAKE_MS", "77", 1), 0);
  auto without = job("B");
  without.unset = {"FAKE_MS"};
  const auto results = measure_steps(std::vector{job("A"), without}, plan(1, 1));
  ::unsetenv("FAKE_MS");
  EXPECT_DOUBLE_EQ(results[0].ms_p50, 77);
  EXPECT_DOUBLE_EQ(results[1].ms_p50, 10);  // the worker's own
}

struct Fault {
  const char* name;
  const char* message;
};

class StepBenchFault : public StepBench, public ::testing::WithParamInterface<Fault> {};

TEST_P(StepBenchFault, EndsOneEntryAndTheOthersGoOn) {
  const auto broken = job("B", {{"FAKE_FAULT", GetParam().name}, {"FAKE_AT", "3"}});
  auto quick = plan(1, 4);
  quick.step_timeout = std::chrono::milliseconds(3000);
  const auto results = measure_steps(std::vector{job("A"), broken, job("C")}, quick);
  EXPECT_EQ(order(), "ABCABCABCACAC");
  EXPECT_THAT(results[1].error, HasSubstr(GetParam().message));
  EXPECT_FALSE(results[1].ratio_to_first.has_value());
  for (const size_t other : {0, 2}) {
    EXPECT_EQ(results[other].error, "");
    EXPECT_DOUBLE_EQ(results[other].ms_p50, 10);
    EXPECT_DOUBLE_EQ(results[other].ratio_to_first.value(), 1.0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, StepBenchFault,
                         ::testing::Values(Fault{"exit", "exit status 7"},
                                           Fault{"kill", "signal 9 (Killed)"},
                                           Fault{"garbage", "'Segmentation fault (core dumped)'"},
                                           Fault{"hang", "nothing for 3 s"},
                                           Fault{"error", "the loss is not finite"},
                                           Fault{"nonumber", "expected a number 'ms'"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(StepBench, AFailureShowsTheWorkersLastWords) {
  const auto results =
      measure_steps(std::vector{job("A", {{"FAKE_FAULT", "exit"}, {"FAKE_AT", "1"}})}, plan(1, 1));
  EXPECT_THAT(results[0].error, HasSubstr("A: expected the time of a training step"));
  EXPECT_THAT(results[0].hint, HasSubstr("something is very wrong"));
}

TEST_F(StepBench, AWorkerThatNeverGetsReadyIsGivenUp) {
  auto quick = plan(1, 1);
  quick.start_timeout = std::chrono::milliseconds(3000);
  const auto results =
      measure_steps(std::vector{job("A"), job("B", {{"FAKE_FAULT", "silent"}})}, quick);
  EXPECT_TRUE(results[0].ok());
  EXPECT_THAT(results[1].error, HasSubstr("nothing for 3 s"));
}

TEST_F(StepBench, AProgramThatIsNotThereIsAnErrorOfItsEntry) {
  StepJob missing = job("B");
  missing.argv = {"no-such-program-of-wavroute"};
  const auto results = measure_steps(std::vector{job("A"), missing}, plan(1, 1));
  EXPECT_TRUE(results[0].ok());
  EXPECT_THAT(results[1].error, HasSubstr("no-such-program-of-wavroute"));
}

TEST_F(StepBench, WhenTheFirstJobFailsTheOthersHaveNoRatio) {
  const auto broken = job("A", {{"FAKE_FAULT", "kill"}, {"FAKE_AT", "2"}});
  const auto results = measure_steps(std::vector{broken, job("B")}, plan(1, 2));
  EXPECT_FALSE(results[0].ok());
  EXPECT_DOUBLE_EQ(results[1].ms_p50, 10);
  EXPECT_FALSE(results[1].ratio_to_first.has_value());
}

TEST_F(StepBench, GroupsThatFitInMemoryAllHoldTheFirstJob) {
  std::vector jobs = {job("A", {{"FAKE_BYTES", "40"}}), job("B", {{"FAKE_BYTES", "50"}}),
                      job("C", {{"FAKE_BYTES", "60"}})};
  for (size_t i = 0; i < jobs.size(); ++i) jobs[i].estimate_bytes = 40 + 10 * i;
  const auto results = measure_steps(jobs, plan(1, 2, 100));
  EXPECT_EQ(order(),
            "ABABAB"
            "CACAC");
  for (const auto& result : results) EXPECT_TRUE(result.ratio_to_first.has_value());
}

TEST_F(StepBench, TheRatioComesFromTheGroupOfTheJob) {
  // While B is stepped A takes 20 ms; later, beside C, it takes 40.
  std::vector jobs = {job("A", {{"FAKE_MS", "20 20 20 40"}, {"FAKE_BYTES", "60"}}),
                      job("B", {{"FAKE_MS", "10"}}), job("C", {{"FAKE_MS", "10"}})};
  for (auto& each : jobs) each.estimate_bytes = 60, each.env["FAKE_BYTES"] = "40";
  const auto results = measure_steps(jobs, plan(1, 2, 130));
  EXPECT_EQ(order(),
            "ABABAB"
            "CACAC");
  EXPECT_DOUBLE_EQ(results[1].ratio_to_first.value(), 2);
  EXPECT_DOUBLE_EQ(results[2].ratio_to_first.value(), 4);
}

TEST_F(StepBench, WhatTheFirstStepTakesReplacesAnEstimateThatWasTooLow) {
  std::vector jobs = {job("A"), job("B"), job("C")};
  for (auto& each : jobs) each.env["FAKE_BYTES"] = "40";
  jobs[2].env["FAKE_MS"] = "count";
  const auto results = measure_steps(jobs, plan(1, 2, 100));
  // C has taken its first step when it turns out too large, and starts again beside A.
  EXPECT_EQ(order(),
            "ABC"
            "ABAB"
            "CACAC");
  EXPECT_TRUE(results[2].ratio_to_first.has_value());
  EXPECT_DOUBLE_EQ(results[2].first_ms, 3);  // the very first: a second start may find a cache
}

TEST_F(StepBench, AJobTooLargeForAnyGroupRunsAlone) {
  std::vector jobs = {job("A", {{"FAKE_BYTES", "40"}}), job("B", {{"FAKE_BYTES", "90"}})};
  jobs[0].estimate_bytes = 40;
  for (const uint64_t estimate : {0U, 90U}) {
    std::filesystem::remove(log_);
    jobs[1].estimate_bytes = estimate;
    std::string told;
    const auto results =
        measure_steps(jobs, plan(1, 2, 100), [&](std::string_view what) { told += what; });
    // If the estimate says so, the two never exist at the same time.
    EXPECT_EQ(told.find("does not fit") == std::string::npos, estimate == 90);
    EXPECT_EQ(order(), estimate == 0 ? "AB"
                                       "AA"
                                       "BBB"
                                     : "AAABBB");
    EXPECT_TRUE(results[1].ok());
    EXPECT_FALSE(results[1].ratio_to_first.has_value());
  }
}

TEST_F(StepBench, AReferenceThatDiesInALaterGroupKeepsItsNumbers) {
  std::vector jobs = {job("A", {{"FAKE_FAULT", "kill"}, {"FAKE_AT", "4"}}), job("B"), job("C")};
  for (auto& each : jobs) each.estimate_bytes = 60, each.env["FAKE_BYTES"] = "60";
  const auto results = measure_steps(jobs, plan(1, 2, 120));
  EXPECT_DOUBLE_EQ(results[0].ms_p50, 10);
  EXPECT_TRUE(results[1].ratio_to_first.has_value());
  EXPECT_TRUE(results[2].ok());
  EXPECT_FALSE(results[2].ratio_to_first.has_value());
}

TEST_F(StepBench, TellsEveryRoundThatCounts) {
  std::vector<std::string> told;
  const auto results = measure_steps(std::vector{job("A")}, plan(2, 2),
                                     [&](std::string_view what) { told.emplace_back(what); });
  EXPECT_TRUE(results[0].ok());
  EXPECT_THAT(told, ElementsAre(HasSubstr("first step 10 ms"), "round 1 of 2", "round 2 of 2"));
}

TEST_F(StepBench, APlanWithoutRoundsIsAUserError) {
  EXPECT_THROW((void)measure_steps(std::vector{job("A")}, plan(1, 0)), UserError);
  EXPECT_THROW((void)measure_steps(std::vector{job("A")}, plan(0, 1)), UserError);
  EXPECT_THAT(order(), IsEmpty());
}

TEST_F(StepBench, NoJobsGiveNoResults) {
  EXPECT_THAT(measure_steps(std::span<const StepJob>{}, plan(1, 1)), IsEmpty());
}

}  // namespace
}  // namespace wavroute
