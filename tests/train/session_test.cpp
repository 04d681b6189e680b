// From a configuration to a plan of a run.
#include "train/session.h"

#include <gmock/gmock.h>

#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using ::testing::HasSubstr;

class PlanSession : public ::testing::Test {
 protected:
  PlanSession() {
    put(folder_ / "text.txt", std::string(4000, 'a'));
    config_.name = "planned";
    config_.model.layers = 2;
    config_.model.width = 16;
    config_.model.heads = 2;
    config_.model.context = 32;
    config_.data.train = config_.data.valid = (folder_ / "text.txt").string();
    config_.train.batch = 12;
    config_.train.precision = Precision::kFp32;
    config_.train.device = DeviceKind::kCpu;
    config_.train.threads = 1;
  }

  // Enough free memory that a plan of `rows` rows just fits.
  [[nodiscard]] Machine machine_for(int64_t rows) const {
    Config config = config_;
    config.train.micro_batch = rows;
    const double bytes = forecast(config, 256, Machine()).memory.total();
    Machine machine;
    machine.memory_available = static_cast<uint64_t>(bytes / 0.9) + 1;
    return machine;
  }

  TemporaryFolder folder_;
  Config config_;
};

TEST_F(PlanSession, TakesTheLargestDivisorOfTheBatchThatFits) {
  for (const auto& [fitting, expected] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {5, 4}, {6, 6}, {11, 6}, {12, 12}}) {
    const Session session = plan_session(config_, BeyondMemory::kRefuse, machine_for(fitting));
    EXPECT_EQ(session.config.train.micro_batch, expected) << fitting;
    EXPECT_TRUE(session.forecast.fits());
  }
}

TEST_F(PlanSession, RefusesAMicroBatchThatDoesNotFitAndNamesOneThatDoes) {
  config_.train.micro_batch = 12;
  try {
    static_cast<void>(plan_session(config_, BeyondMemory::kRefuse, machine_for(6)));
    ADD_FAILURE() << "expected a UserError";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("micro_batch = 12"));
    EXPECT_THAT(error.hint(), HasSubstr("train.micro_batch = 6 fits"));
  }
}

TEST_F(PlanSession, KeepsTheMicroBatchOfAResumedRunThatDoesNotFitAnyMore) {
  config_.train.micro_batch = 12;
  const Session session = plan_session(config_, BeyondMemory::kGoOn, machine_for(6));
  EXPECT_EQ(session.config.train.micro_batch, 12);
  EXPECT_FALSE(session.forecast.fits());
}

TEST_F(PlanSession, CountsTheWindowsOfTheTextAndTheTokensOfThePrompt) {
  config_.sample.tokens = 0;
  const auto evaluation = [&] {
    return plan_session(config_, BeyondMemory::kRefuse, machine_for(12)).forecast.memory.evaluation;
  };
  config_.data.eval_tokens = 8 * 32;
  const double of_eight = evaluation();
  EXPECT_GT(of_eight, 0.0);
  for (const int64_t more : {int64_t{9 * 32}, INT64_MAX - 5, INT64_MAX}) {
    config_.data.eval_tokens = more;  // windows are evaluated eight at a time
    EXPECT_EQ(evaluation(), of_eight) << more;
  }
  put(folder_ / "short.txt", std::string(2 * 32 + 1, 'a'));
  config_.data.valid = (folder_ / "short.txt").string();
  EXPECT_NEAR(evaluation() / of_eight, 2.0 / 8.0, 0.01);

  config_.sample = {.prompt = "a", .tokens = 100'000};
  const double of_one = evaluation();
  config_.sample.prompt = std::string(100'000, 'a');
  EXPECT_NEAR(evaluation() / of_one, 2.0, 0.1);
}

TEST_F(PlanSession, AllocatesNoModel) {
  const Session session = plan_session(config_, BeyondMemory::kRefuse, machine_for(12));
  EXPECT_GT(session.forecast.parameters, 0);
  EXPECT_FALSE(session.model->embedding().value.defined());
}

TEST(Resume, MayFindItsTextElsewhereButNoOtherSettings) {
  Config stored;
  Config moved = stored;
  moved.data.train = "/elsewhere/train.txt";
  moved.data.valid = "/elsewhere/valid.txt";
  EXPECT_NO_THROW(check_resumable(stored, moved));
  moved.data.max_bytes = 10;
  EXPECT_THAT(message_of<UserError>([&] { check_resumable(stored, moved); }),
              HasSubstr("data.max_bytes"));
}

TEST(Vocabulary, OfCharactersIsThatOfTheTextAndOfBytesIs256) {
  const TemporaryFolder folder;
  Config config;
  config.model.context = 4;
  config.data.train = config.data.valid = (folder / "text.txt").string();
  put(config.data.train, "abcabcabcabc");
  EXPECT_EQ(vocabulary_of(config), 256);
  config.data.tokenizer = TokenizerKind::kChars;
  EXPECT_EQ(vocabulary_of(config), 3);
}

}  // namespace
}  // namespace wavroute
