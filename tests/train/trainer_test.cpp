// The training loop of a run folder.
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/checkpoint.h"
#include "tests/temporary_folder.h"
#include "tests/train/small_run.h"
#include "train/process.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kUnseen = 'z';  // only in the validation text, if there is one

// The effect of `ulimit -f`, while it exists.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);  // as the command does
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    write_texts("");
    config_ = testing::small_run(folder_.path(), "prenorm", /*steps=*/10);
    config_.train.eval_every = 5;
    config_.train.save_every = 5;
    config_.train.keep = 9;
  }

  void write_texts(const std::string& valid) {
    std::string text;
    for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i * i % 17);
    put(folder_ / "train.txt", text);
    put(folder_ / "valid.txt", valid + text.substr(0, 40));
  }

  [[nodiscard]] RunPaths paths() const { return {folder_ / "run"}; }

  // Trains as configured, from a checkpoint's step if one is named; `prepare` sees the model first.
  bool run(int64_t from = 0, const std::function<void(Decoder&)>& prepare = {}) {
    std::filesystem::create_directories(paths().root);
    Session session = open_session(config_);
    Console console(/*quiet=*/true);
    console.open_log(paths().log());
    if (prepare) prepare(*session.model);
    Trainer trainer(session, paths(), console);
    if (from > 0) {
      trainer.resume(paths().checkpoints() / ("step_" + std::to_string(from)));
    }
    return trainer.run();
  }

  [[nodiscard]] json summary() const { return json::parse(get(paths().root / "summary.json")); }

  [[nodiscard]] std::vector<json> rows() const {
    std::vector<json> rows;
    std::istringstream lines(get(paths().metrics()));
    for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
    return rows;
  }

  [[nodiscard]] std::map<int64_t, double> rates() const {
    std::map<int64_t, double> rates;
    for (const json& row : rows()) {
      if (row.contains("lr")) rates[row.at("step")] = row.at("lr");
    }
    return rates;
  }

  [[nodiscard]] std::vector<int64_t> saved() const {
    std::vector<int64_t> steps;
    for (const Checkpoint& checkpoint : list_checkpoints(paths().root)) {
      steps.push_back(checkpoint.step);
    }
    return steps;
  }

  [[nodiscard]] std::string weights(int64_t step) const {
    const auto folder = paths().checkpoints() / ("step_" + std::to_string(step));
    return get(folder / "model.safetensors") + get(folder / "optimizer.safetensors");
  }

  TemporaryFolder folder_;
  Config config_;
};

// The embedding of a token that no training text has: training never sees it.
void poison(Decoder& model) {
  const at::NoGradGuard no_grad;
  model.embedding().value[kUnseen].fill_(std::numeric_limits<float>::quiet_NaN());
}

TEST_F(TrainerTest, StopsWhereTheValidationLossIsNotFinite) {
  write_texts("z");
  ASSERT_TRUE(run());
  config_.train.steps = 20;
  // Resumed from step 5 with a NaN that training never reads: step 10 is trained, evaluated, and
  // not kept.
  Session session = open_session(config_);
  Console console(/*quiet=*/true);
  Trainer trainer(session, paths(), console);
  trainer.resume(paths().checkpoints() / "step_5");
  poison(*session.model);
  const std::string message = message_of<Failure>([&] { static_cast<void>(trainer.run()); });
  EXPECT_THAT(message, HasSubstr("expected a finite validation loss, given nan, after step 10"));
  EXPECT_THAT(message, HasSubstr("checkpoints/step_5;"));
  EXPECT_THAT(saved(), ElementsAre(5));
  EXPECT_EQ(summary().at("status"), "diverged");
  EXPECT_FALSE(summary().contains("val_loss"));
  for (const json& row : rows()) {
    for (const auto& [key, value] : row.items()) EXPECT_FALSE(value.is_null()) << key;
  }
}

TEST_F(TrainerTest, KeepsNoParametersThatAreNotFinite) {
  EXPECT_THAT(message_of<Failure>([&] { static_cast<void>(run(0, poison)); }),
              HasSubstr("expected finite parameters, given others, after step 5"));
  EXPECT_THAT(saved(), ElementsAre());
  EXPECT_EQ(summary().at("status"), "diverged");
}

TEST_F(TrainerTest, GoesOnFromNoCheckpointThatIsNotFinite) {
  Session session = open_session(config_);
  AdamW optimizer(session.model->parameters(), config_.optimizer);
  poison(*session.model);
  optimizer.set_updates(5);
  RunState state{{5, 10}, session.corpus.train_sha256, session.corpus.valid_sha256, 80, {}, {}};
  save_checkpoint(paths().root, *session.model, optimizer, *session.corpus.tokenizer, state, 9);
  EXPECT_THAT(message_of<UserError>([&] { static_cast<void>(run(5)); }),
              HasSubstr("expected finite parameters, given others"));
}

TEST_F(TrainerTest, ThatGetsMoreStepsKeepsThePastAndTheLastRate) {
  ASSERT_TRUE(run());
  const auto planned = rates();
  const std::string at_ten = weights(10);
  config_.train.steps = 15;
  ASSERT_TRUE(run(10));
  config_.train.steps = 20;  // and again, from the middle of the extension
  ASSERT_TRUE(run(15));
  EXPECT_EQ(weights(10), at_ten);
  const auto all = rates();
  ASSERT_EQ(all.size(), 20U);
  for (const auto& [step, rate] : planned) EXPECT_EQ(all.at(step), rate) << step;
  for (int64_t step = 11; step <= 20; ++step) EXPECT_NEAR(all.at(step), 0.001, 1e-12) << step;
  EXPECT_EQ(summary().at("steps"), 20);
  EXPECT_EQ(summary().at("schedule_steps"), 10);  // no sample of runs that planned 20
  const std::string at_twenty = weights(20);

  // Without a stop from step 10: the same bits.
  ASSERT_TRUE(run(10));
  EXPECT_EQ(weights(20), at_twenty);
}

TEST_F(TrainerTest, OfWsdMovesItsDecayOrRefuses) {
  config_.schedule = {ScheduleKind::kWsd, 0.1, 0.1, 0.4};  // decays from step 7 on
  ASSERT_TRUE(run());
  const auto files = saved();
  config_.train.steps = 20;
  EXPECT_THAT(message_of<UserError>([&] { static_cast<void>(run(10)); }),
              HasSubstr("before the decay of wsd begins (step 6)"));
  EXPECT_EQ(saved(), files);
  ASSERT_TRUE(run(5));
  const auto all = rates();
  for (int64_t step = 2; step <= 12; ++step) EXPECT_EQ(all.at(step), 0.01) << step;
  EXPECT_NEAR(all.at(20), 0.001, 1e-12);
}

TEST_F(TrainerTest, ThatGetsMoreStepsFreezesNoTrainedGate) {
  config_.residual.scheme = "gated";
  config_.residual.options["freeze"] = 0.5;
  ASSERT_TRUE(run());
  const auto frozen = [&](int64_t step) {
    const auto file = paths().checkpoints() / ("step_" + std::to_string(step)) / "config.json";
    return json::parse(get(file)).at("residual").at("frozen").get<bool>();
  };
  config_.train.steps = 40;  // half of which would be 20
  ASSERT_TRUE(run(10));
  for (const int64_t step : {5, 10, 15, 40}) EXPECT_FALSE(frozen(step)) << step;
}

TEST_F(TrainerTest, SaysRunningUntilItIsFinishedAndThenTheLoss) {
  std::filesystem::create_directories(paths().metrics());  // can't be opened as a file
  EXPECT_THROW(static_cast<void>(run()), Error);
  std::filesystem::remove(paths().metrics());
  ASSERT_TRUE(run());
  EXPECT_EQ(summary().at("status"), "finished");
  EXPECT_EQ(summary().at("val_loss"), rows().back().at("val_loss"));

  // Killed between the last checkpoint and the summary: the resume completes it from the run's
  // files.
  const json whole = summary();
  put(paths().root / "summary.json", R"({"status": "running", "steps": 10})");
  ASSERT_TRUE(run(10));
  EXPECT_EQ(summary().at("status"), "finished");
  EXPECT_EQ(summary().at("val_loss"), whole.at("val_loss"));
  EXPECT_GT(summary().at("tokens_per_s"), 0.0);
  EXPECT_GE(summary().at("peak_rss_bytes"), rows().front().at("peak_rss_bytes"));

  // Extended, and stopped by an error: nothing of the shorter run's loss remains.
  config_.train.steps = 20;
  {
    const FileSizeLimit less_than_a_checkpoint(16 << 10);
    EXPECT_THAT(message_of<Failure>([&] { static_cast<void>(run(10)); }), HasSubstr("ulimit -f"));
  }
  EXPECT_THAT(saved(), ElementsAre(5, 10));
  EXPECT_EQ(summary().at("status"), "failed");
  EXPECT_EQ(summary().at("steps"), 20);
  EXPECT_FALSE(summary().contains("val_loss"));
}

TEST_F(TrainerTest, LeavesAFinishedRunsSummaryAlone) {
  ASSERT_TRUE(run());
  const std::string before = get(paths().root / "summary.json");
  ASSERT_TRUE(run(10));
  EXPECT_EQ(get(paths().root / "summary.json"), before);
}

TEST_F(TrainerTest, EvaluatesAndSavesOnlyAfterTheLastStepWhereEveryIsZero) {
  config_.train.eval_every = config_.train.save_every = config_.train.log_every = 0;
  ASSERT_TRUE(run());
  EXPECT_THAT(saved(), ElementsAre(10));
  int64_t evaluations = 0;
  for (const json& row : rows()) evaluations += static_cast<int64_t>(row.contains("val_loss"));
  EXPECT_EQ(evaluations, 1);
}

TEST_F(TrainerTest, SavesWithoutEvaluatingWhereEvalEveryIsZero) {
  config_.train.eval_every = 0;
  ASSERT_TRUE(run());
  EXPECT_THAT(saved(), ElementsAre(5, 10));
  std::vector<int64_t> evaluated;
  for (const json& row : rows()) {
    if (row.contains("val_loss")) evaluated.push_back(row.at("step"));
  }
  EXPECT_THAT(evaluated, ElementsAre(10));
  EXPECT_EQ(best_checkpoint(paths().root)->step, 10);
}

TEST_F(TrainerTest, GoesOnWithoutTheFilesThatItCanDoWithout) {
  config_.residual.scheme = "block_attnres";
  config_.residual.options["blocks"] = int64_t{2};
  config_.sample.tokens = 4;
  std::filesystem::create_directories(paths().root / "routing.json");  // a folder of that name
  put(paths().samples(), "a file");
  ASSERT_TRUE(run());
  EXPECT_EQ(summary().at("status"), "finished");
  EXPECT_THAT(saved(), ElementsAre(5, 10));
  const std::string log = get(paths().log());
  EXPECT_THAT(log, HasSubstr("warning: routing.json is missing or old"));
  EXPECT_THAT(log, HasSubstr("warning: step_5.txt is missing or old"));
}

TEST_F(TrainerTest, GoesOnWithoutASummaryAndALog) {
  std::filesystem::create_directories(paths().summary());
  ASSERT_TRUE(run());
  EXPECT_THAT(get(paths().log()), HasSubstr("warning: summary.json is missing or old"));
  std::filesystem::remove(paths().summary());
  std::filesystem::remove(paths().log());
  std::filesystem::create_symlink("/dev/null", paths().log());
  config_.train.steps = 15;
  ASSERT_TRUE(run(10));
  EXPECT_EQ(summary().at("status"), "finished");
  EXPECT_THAT(saved(), ElementsAre(5, 10, 15));
}

// Whatever ends the process in between: the old loss is not taken for that of the new run.
TEST_F(TrainerTest, ThatBeginsAgainIsNotFinishedAnyMore) {
  ASSERT_TRUE(run());
  std::filesystem::remove_all(paths().checkpoints());
  put(paths().checkpoints(), "no folder, so that setting aside fails");
  Session session = open_session(config_);
  Console console(/*quiet=*/true);
  EXPECT_THROW(Trainer(session, paths(), console).begin(), Error);
  EXPECT_EQ(summary().at("status"), "running");
  EXPECT_FALSE(summary().contains("val_loss"));
}

// Its checkpoints may have been deleted to save space.
TEST_F(TrainerTest, ThatBeginsAgainSetsItsCurveAside) {
  ASSERT_TRUE(run());
  const std::string curve = get(paths().metrics());
  std::filesystem::remove_all(paths().checkpoints());
  Session session = open_session(config_);
  Console console(/*quiet=*/true);
  for (const char* name : {"earlier-metrics.jsonl", "earlier-metrics.jsonl.2"}) {
    put(paths().metrics(), curve + name);
    Trainer(session, paths(), console).begin();
    EXPECT_EQ(get(paths().root / name), curve + name);
    EXPECT_FALSE(std::filesystem::exists(paths().metrics()));
  }
  EXPECT_EQ(get(paths().root / "earlier-metrics.jsonl"), curve + "earlier-metrics.jsonl");
}

TEST_F(TrainerTest, LogsTheAuxiliaryLossOfAScheme) {
  config_.residual.scheme = "act";
  ASSERT_TRUE(run());
  for (const json& row : rows()) {
    if (!row.contains("loss")) continue;
    EXPECT_GT(row.at("aux_loss"), 0.0);
    EXPECT_GT(row.at("mean_depth"), 0.0);
  }
}

}  // namespace
}  // namespace wavroute
