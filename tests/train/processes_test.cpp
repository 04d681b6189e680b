// Training in several processes gives what one process gives.
#include "train/processes.h"

#include <gmock/gmock.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/model/small_model.h"
#include "tests/temporary_folder.h"
#include "tests/train/processes_in_turn.h"
#include "tests/train/small_run.h"
#include "train/evaluation.h"
#include "train/step.h"
#include "train/trainer.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using ::testing::HasSubstr;

constexpr int64_t kRows = 5, kContext = 9;
constexpr double kRounding = 1e-10;  // of a step after an update, whose noise Adam scales

TEST(Shares, AreAllOfABufferInVectorsOf32) {
  for (const int64_t length : {0, 1, 32, 33, 64, 1000, 4096}) {
    for (const int size : {1, 2, 3, 7}) {
      int64_t end = 0;
      for (int rank = 0; rank < size; ++rank) {
        const Share own = share_of(length, rank, size);
        EXPECT_EQ(own.begin, end);
        EXPECT_TRUE(own.begin % 32 == 0 || own.count() == 0);
        end = own.end;
      }
      EXPECT_EQ(end, length);
    }
  }
}

TEST(Shares, OfRowsDifferByOneAtMost) {
  EXPECT_EQ(rows_of(7, 0, 3), (Share{0, 2}));
  EXPECT_EQ(rows_of(7, 1, 3), (Share{2, 4}));
  EXPECT_EQ(rows_of(7, 2, 3), (Share{4, 7}));
}

struct Steps {
  std::vector<TrainStepResult> results;
  NamedTensors values;
};

// Two steps of a scattered model in one process, by passes of `micro_batch` rows.
struct StepCase {
  SchemeCase scheme;
  int64_t micro_batch = 2;
  Recompute recompute = Recompute::kNone;
};

Steps take_steps(const StepCase& given, Processes& processes, Optimizer kind,
                 Precision precision = Precision::kFp64) {
  const auto model = scattered_model(small_spec(given.scheme), precision);
  const OptimizerConfig config;
  // Every layer is a part of its own.
  GradientSum sum(*model, processes, kind, /*least_bytes=*/1);
  const bool is_single = processes.size() == 1;
  AdamW optimizer = kind == Optimizer::kSharded ? AdamW(model->parameters(), config, sum.own())
                                                : AdamW(model->parameters(), config);
  const Share own = rows_of(kRows, processes.rank(), processes.size());
  const TrainStepPlan plan{given.micro_batch, given.recompute, /*clip=*/0.5, kRows,
                           is_single ? nullptr : &sum};
  Steps steps;
  for (const char* name : {"first", "second"}) {
    const Batch batch{random_tokens(kRows, kContext, name),
                      random_tokens(kRows, kContext, std::string("after ") + name)};
    steps.results.push_back(train_step(*model, optimizer, batch.slice(own.begin, own.end), plan,
                                       training(), /*lr=*/0.01));
  }
  steps.values = values_of(*model);
  return steps;
}

// Of every process.
std::vector<Steps> take_steps(const StepCase& given, int size, Optimizer kind,
                              Precision precision = Precision::kFp64) {
  std::vector<Steps> all(static_cast<size_t>(size));
  run_processes(size, [&](Processes& processes) {
    all[static_cast<size_t>(processes.rank())] = take_steps(given, processes, kind, precision);
  });
  return all;
}

void expect_near(const Steps& actual, const Steps& expected, double tolerance) {
  for (size_t i = 0; i < expected.results.size(); ++i) {
    EXPECT_NEAR(actual.results[i].loss, expected.results[i].loss, tolerance);
    EXPECT_NEAR(actual.results[i].auxiliary, expected.results[i].auxiliary, tolerance);
    EXPECT_NEAR(actual.results[i].mean_depth, expected.results[i].mean_depth, tolerance);
    EXPECT_NEAR(actual.results[i].grad_norm, expected.results[i].grad_norm, tolerance);
  }
  expect_equal(actual.values, expected.values, tolerance);
}

class StepsOfSeveralProcesses : public ::testing::TestWithParam<SchemeCase> {};

INSTANTIATE_TEST_SUITE_P(Registry, StepsOfSeveralProcesses, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

// Three processes of 1, 2 and 2 rows.
TEST_P(StepsOfSeveralProcesses, AreThoseOfOneForEveryScheme) {
  const StepCase given{GetParam()};
  const Steps expected = take_steps(given, single_process(), Optimizer::kWhole);
  for (const Optimizer kind : {Optimizer::kWhole, Optimizer::kSharded}) {
    for (const Steps& actual : take_steps(given, 3, kind)) expect_near(actual, expected, kRounding);
  }
}

// Remembers what is handed over, and sums nothing.
class Listener final : public Processes {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 2; }
  void start_sum(const at::Tensor& flat) override { sent.emplace_back(flat, flat.clone()); }
  void start_sum_of_shares(const at::Tensor&) override {}
  void start_gather(const at::Tensor&) override {}
  void finish() override {}
  void broadcast(const at::Tensor&) override {}
  [[nodiscard]] at::Tensor all_gather(const at::Tensor& own) override {
    return at::stack({own, at::zeros_like(own)});
  }
  std::vector<std::pair<at::Tensor, at::Tensor>> sent;  // the buffer, and what it held
};

TEST_P(StepsOfSeveralProcesses, SendGradientsThatDoNotChangeAnyMore) {
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock}) {
    const auto model = scattered_model(small_spec(GetParam()));
    Listener listener;
    GradientSum sum(*model, listener, Optimizer::kWhole, /*least_bytes=*/1);
    size_t early = 0;
    PassOptions options;
    options.pass = training();
    options.recompute = recompute;
    options.on_final = [&](int64_t layer) {
      sum.layer_is_final(layer);
      early = listener.sent.size();
    };
    static_cast<void>(training_pass(*model, random_tokens(2, kContext),
                                    random_tokens(2, kContext, "next"), options));
    sum.finish();
    EXPECT_GT(early, 1U);  // the head, and a layer
    int64_t elements = 0;
    for (const auto& [buffer, then] : listener.sent) {
      EXPECT_TRUE(at::equal(buffer, then));
      elements += buffer.numel();
    }
    int64_t all = 0;
    for (const FlatGroup& group : model->parameters().groups()) all += group.grad.numel();
    EXPECT_EQ(elements, all);
  }
}

TEST(SeveralProcesses, GiveTheSameBitsEveryTimeAndInEveryProcess) {
  const StepCase given{{"wav", "wav", {}}, /*micro_batch=*/1};
  for (const Optimizer kind : {Optimizer::kWhole, Optimizer::kSharded}) {
    const std::vector<Steps> first = take_steps(given, 2, kind, Precision::kFp32);
    const std::vector<Steps> second = take_steps(given, 2, kind, Precision::kFp32);
    for (const Steps* other : {&first[1], &second[0], &second[1]}) {
      expect_equal(other->values, first[0].values);
      EXPECT_EQ(other->results[1].loss, first[0].results[1].loss);
      EXPECT_EQ(other->results[1].grad_norm, first[0].results[1].grad_norm);
    }
  }
}

TEST(SeveralProcesses, KeepTheCopiesOfBf16WithTheirParameters) {
  const StepCase given{{"wav", "wav", {}}};
  run_processes(2, [&](Processes& processes) {
    const auto model = scattered_model(small_spec(given.scheme), Precision::kBf16);
    GradientSum sum(*model, processes, Optimizer::kSharded);
    AdamW optimizer(model->parameters(), {}, sum.own());
    const Batch batch{random_tokens(1, kContext), random_tokens(1, kContext, "next")};
    static_cast<void>(train_step(*model, optimizer, batch, {1, Recompute::kNone, 0.0, 2, &sum},
                                 training(), 0.01));
    for (const FlatGroup& group : model->parameters().groups()) {
      if (!group.compute.defined()) continue;
      EXPECT_TRUE(at::equal(group.compute, group.value.to(at::kBFloat16)));
    }
  });
}

TEST(SeveralProcesses, HaveMomentsOfTheirSharesAlone) {
  const auto model = fresh_model(small_spec("wav"));
  int64_t whole = 0, held = 0;
  for (const FlatGroup& group : model->parameters().groups()) whole += group.value.numel();
  run_processes(3, [&](Processes& processes) {
    const auto own = fresh_model(small_spec("wav"));
    const GradientSum sum(*own, processes, Optimizer::kSharded);
    const AdamW optimizer(own->parameters(), {}, sum.own());
    int64_t here = 0;
    for (const at::Tensor& moments : optimizer.first_moments()) here += moments.numel();
    EXPECT_LT(here, whole / 2);
    held += here;  // one thread at a time
  });
  EXPECT_EQ(held, whole);
}

TEST(SeveralProcesses, AreHandedEveryGradientOnce) {
  const StepCase given{{"wav", "wav", {}}};
  const auto model = fresh_model(small_spec("wav"));
  int64_t bytes = 0;
  for (const FlatGroup& group : model->parameters().groups()) {
    bytes += group.value.numel() * static_cast<int64_t>(group.value.element_size());
  }
  run_processes(2, [&](Processes& processes) {
    static_cast<void>(take_steps(given, processes, Optimizer::kWhole));
    EXPECT_EQ(processes.bytes(), 2 * bytes);  // two steps
  });
  run_processes(2, [&](Processes& processes) {
    static_cast<void>(take_steps(given, processes, Optimizer::kSharded));
    EXPECT_EQ(processes.bytes(), 4 * bytes);  // and every parameter
  });
}

TEST(SeveralProcesses, StopAtOneErrorWithItsRank) {
  run_processes(3, [](Processes& processes) {
    const auto work = [&] {
      if (processes.rank() == 1) throw UserError("expected a text, given none", "write one");
    };
    if (processes.rank() == 1) {
      try {
        together(processes, work);
        ADD_FAILURE() << "nothing was thrown";
      } catch (const UserError& error) {
        EXPECT_STREQ(error.what(), "rank 1: expected a text, given none");
        EXPECT_EQ(error.hint(), "write one");
      }
      return;
    }
    try {
      together(processes, work);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const ProcessEnded& ended) {
      EXPECT_EQ(ended.exit_code(), 2);
    }
  });
}

TEST(SeveralProcesses, ExchangeTextsOfAnyLength) {
  run_processes(3, [](Processes& processes) {
    const std::string own(static_cast<size_t>(processes.rank() * 3), 'x');
    EXPECT_EQ(processes.exchange(own), (std::vector<std::string>{"", "xxx", "xxxxxx"}));
  });
}

// A run in a folder, by any number of processes.
class TrainingInProcesses : public ::testing::Test {
 protected:
  TrainingInProcesses() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i * i % 17);
    put(folder_ / "train.txt", text);
    put(folder_ / "valid.txt", text.substr(0, 200));
    config_ = small_run(folder_.path(), "wav", /*steps=*/6);
    config_.train.batch = 4;
    config_.train.eval_every = 3;
    config_.train.save_every = 3;
    config_.data.eval_tokens = 190;  // three passes
  }

  // Trains, from the newest checkpoint if there is one.
  void train(const std::string& name, int size, Optimizer kind = Optimizer::kWhole) {
    const RunPaths paths{folder_ / name};
    std::filesystem::create_directories(paths.root);
    const auto checkpoints = list_checkpoints(paths.root);
    const auto work = [&](Processes& processes) {
      Session session = open_session(config_);
      Console console(/*quiet=*/true, !processes.is_first());
      Trainer trainer(session, paths, console, processes, kind);
      if (!checkpoints.empty()) trainer.resume(checkpoints.back().path);
      EXPECT_TRUE(trainer.run());
    };
    if (size == 1) return work(single_process());
    run_processes(size, work);
  }

  // Losses by step and kind.
  [[nodiscard]] std::map<std::string, double> losses(const std::string& name) const {
    std::map<std::string, double> losses;
    std::istringstream lines(get(RunPaths{folder_ / name}.metrics()));
    for (std::string line; std::getline(lines, line);) {
      const auto row = nlohmann::json::parse(line);
      for (const char* key : {"loss", "val_loss", "grad_norm"}) {
        if (row.contains(key)) {
          losses[std::string(key) + " " + row.at("step").dump()] = row.at(key);
        }
      }
    }
    return losses;
  }

  [[nodiscard]] std::string weights(const std::string& name, int step) const {
    const auto folder = RunPaths{folder_ / name}.checkpoints() / ("step_" + std::to_string(step));
    return get(folder / "model.safetensors") + get(folder / "optimizer.safetensors");
  }

  static void expect_near(const std::map<std::string, double>& actual,
                          const std::map<std::string, double>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [key, value] : expected) EXPECT_NEAR(actual.at(key), value, 2e-5) << key;
  }

  TemporaryFolder folder_;
  Config config_;
};

TEST_F(TrainingInProcesses, HasTheSameLossesAtAnyNumber) {
  train("one", 1);
  const auto expected = losses("one");
  EXPECT_EQ(expected.size(), 14U);  // 6 losses, 6 norms, 2 validations
  for (const int size : {2, 4}) {
    for (const Optimizer kind : {Optimizer::kWhole, Optimizer::kSharded}) {
      const std::string name = std::to_string(size) + (kind == Optimizer::kWhole ? "" : "s");
      train(name, size, kind);
      expect_near(losses(name), expected);
    }
  }
}

TEST_F(TrainingInProcesses, ContinuesWithAnotherNumberOfProcesses) {
  train("whole", 1);
  config_.train.steps = 3;
  config_.schedule.warmup = 0.0;
  train("two", 2, Optimizer::kSharded);
  config_.train.steps = 6;
  const std::string half = weights("two", 3);
  train("two", 3, Optimizer::kSharded);
  EXPECT_EQ(weights("two", 3), half);
  EXPECT_EQ(losses("two").size(), 14U);

  // The same number from a checkpoint gives the bits of a run without a break.
  for (const auto& [name, kind] : {std::pair("w", Optimizer::kWhole), {"s", Optimizer::kSharded}}) {
    config_.train.steps = 6;
    train(name, 2, kind);
    const std::string last = weights(name, 6);
    std::filesystem::remove_all(RunPaths{folder_ / name}.checkpoints() / "step_6");
    train(name, 2, kind);
    EXPECT_EQ(weights(name, 6), last);
  }
}

TEST_F(TrainingInProcesses, NeedsARowForEveryProcess) {
  config_.train.batch = 2;
  try {
    train("few", 3);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("a train.batch of at least a row for each of 3 processes"));
  }
}

}  // namespace
}  // namespace wavroute
