// Validation loss and routing maps.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>

#include "data/token_file.h"
#include "tests/model/small_model.h"
#include "train/evaluation.h"
#include "train/routing_tap.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kContext = 9;
constexpr double kRounding = 1e-12;

// 17 characters, one of them of two bytes and one of three.
const char* const kAlphabet = "abcdefghijklmnoé€";

// 41 tokens: four windows of 9 targets, and one of 4.
struct Text {
  std::shared_ptr<const Tokenizer> tokenizer = make_chars_tokenizer(kAlphabet);
  std::vector<uint32_t> ids;

  Text() {
    const at::Tensor random = random_tokens(1, 41);
    for (int64_t i = 0; i < 41; ++i) {
      ids.push_back(static_cast<uint32_t>(random[0][i].item<int64_t>()));
    }
  }
  [[nodiscard]] EvalWindows windows(int64_t eval_tokens = 0) const {
    return {tokens_in_memory(ids, 17, "a test"), kContext, eval_tokens};
  }
};

// Cross-entropy summed over the first `count` targets, window by window, from place `first` of
// each.
double loss_sum(const Decoder& model, const std::vector<uint32_t>& ids, size_t count,
                size_t first = 0) {
  double sum = 0.0;
  for (size_t begin = 0; begin < count; begin += kContext) {
    const size_t length = std::min<size_t>(kContext, count - begin);
    std::vector<int64_t> inputs(ids.begin() + begin, ids.begin() + begin + length);
    const at::Tensor logits = logits_of(model, at::tensor(inputs, at::kLong).unsqueeze(0))[0];
    for (size_t t = first; t < length; ++t) {
      const at::Tensor row = logits[static_cast<int64_t>(t)];
      sum += row.exp().sum().log().item<double>() - row[ids[begin + t + 1]].item<double>();
    }
  }
  return sum;
}

TEST(Evaluation, IsTheMeanCrossEntropyOfEveryTokenButTheFirst) {
  const Text text;
  for (const char* scheme : {"prenorm", "gated", "act", "wav"}) {
    const auto model = scattered_model(small_spec(scheme));
    const Evaluation result = evaluate(*model, text.windows(), *text.tokenizer, {});
    const double sum = loss_sum(*model, text.ids, 40);
    EXPECT_EQ(result.tokens, 40);
    EXPECT_NEAR(result.loss, sum / 40.0, kRounding) << scheme;
    // Bits per byte: over the bytes of the tokens that were scored.
    std::vector<uint32_t> scored(text.ids.begin() + 1, text.ids.end());
    const auto bytes = static_cast<double>(text.tokenizer->decode(scored).size());
    ASSERT_GT(bytes, 40.0);  // some characters have more than one
    EXPECT_NEAR(result.bits_per_byte, sum / bytes / std::numbers::ln2, kRounding) << scheme;
  }
}

TEST(Evaluation, KnowsALossThatIsNotFinite) {
  const Text text;
  const auto model = scattered_model(small_spec("prenorm"));
  EXPECT_TRUE(evaluate(*model, text.windows(), *text.tokenizer, {}).is_finite());
  set_values(*model, "model.norm.weight", std::numeric_limits<double>::quiet_NaN());
  EXPECT_FALSE(evaluate(*model, text.windows(), *text.tokenizer, {}).is_finite());
}

TEST(Evaluation, ScoresAsManyTokensAsItIsTold) {
  const Text text;
  const auto model = scattered_model(small_spec("wav"));
  const Evaluation result = evaluate(*model, text.windows(20), *text.tokenizer, {});
  EXPECT_EQ(result.tokens, 20);
  EXPECT_NEAR(result.loss, loss_sum(*model, text.ids, 20) / 20.0, kRounding);
}

TEST(Evaluation, AfterAPromptScoresTheRestOfEachWindow) {
  const Text text;
  EvaluationOptions options;
  options.prompt = 3;
  for (const char* scheme : {"prenorm", "gated", "act", "wav"}) {
    const auto model = scattered_model(small_spec(scheme));
    const Evaluation result = evaluate(*model, text.windows(), *text.tokenizer, options);
    EXPECT_EQ(result.tokens, 4 * 6 + 1);
    EXPECT_NEAR(result.loss, loss_sum(*model, text.ids, 40, 3) / 25.0, kRounding) << scheme;
  }
  const auto model = scattered_model(small_spec("prenorm"));
  for (const int64_t wrong : {-1, 9}) {
    options.prompt = wrong;
    EXPECT_THROW(static_cast<void>(evaluate(*model, text.windows(), *text.tokenizer, options)),
                 UserError);
  }
}

TEST(Evaluation, DoesNotDependOnTheRowsOfAPass) {
  const Text text;
  for (const SchemeInfo& scheme : residual_schemes()) {
    const auto model = scattered_model(small_spec(scheme.name));
    const auto with_rows = [&](int64_t rows) {
      EvaluationOptions options;
      options.rows = rows;
      return evaluate(*model, text.windows(36), *text.tokenizer, options);
    };
    const Evaluation all = with_rows(8), single = with_rows(1), three = with_rows(3);
    EXPECT_NEAR(single.loss, all.loss, kRounding) << scheme.name;
    EXPECT_NEAR(three.loss, all.loss, kRounding) << scheme.name;
    EXPECT_NEAR(three.mean_depth, all.mean_depth, kRounding) << scheme.name;
  }
}

TEST(Evaluation, TouchesNeitherParametersNorGradients) {
  const Text text;
  const auto model = scattered_model(small_spec("act"));
  static_cast<void>(record_pass(*model, training()));
  const NamedTensors values = values_of(*model), gradients = gradients_of(*model);
  static_cast<void>(evaluate(*model, text.windows(), *text.tokenizer, {}));
  static_cast<void>(routing_map(*model, text.windows(), {}));
  expect_equal(values_of(*model), values);
  expect_equal(gradients_of(*model), gradients);
}

TEST(Evaluation, RunsAProgramAndKnowsWhereTrainingStands) {
  const Text text;
  const LayerProgram pruned = LayerProgram::parse("every-other", 4);
  const auto loss = [&](const Decoder& model, const EvaluationOptions& options) {
    return evaluate(model, text.windows(), *text.tokenizer, options).loss;
  };
  const auto wav = scattered_model(small_spec("wav"));
  EvaluationOptions with_program;
  with_program.program = &pruned;
  EXPECT_GT(std::abs(loss(*wav, with_program) - loss(*wav, {})), 1e-3);
  // Frozen gates: the loss of prenorm.
  const auto gated = scattered_model(small_spec("gated"));
  EvaluationOptions early;
  early.progress = {1, 100};
  EXPECT_EQ(loss(*gated, early), loss(*scattered_model(small_spec("prenorm")), {}));
}

TEST(RoutingMap, IsNullWhereTheSchemeDecidesNothing) {
  const Text text;
  for (const char* scheme : {"prenorm", "rezero", "layerdrop"}) {
    const auto model = scattered_model(small_spec(scheme));
    EXPECT_TRUE(routing_map(*model, text.windows(), {}).is_null()) << scheme;
  }
}

// More numbers than at::quantile takes: 0, 1, 2, .. in another order.
TEST(RoutingMap, HasTheDecilesOfAnyNumberOfGates) {
  for (const int64_t count : {int64_t{1}, int64_t{12}, (int64_t{1} << 24) + 9}) {
    RoutingTap tap(at::ones({1}, at::kBool));
    const at::Tensor numbers = at::arange(count, at::kFloat).roll(count / 3);
    tap.on_gate(Site::at(0), numbers.view({1, 1, count}));
    const nlohmann::json gate = tap.document("gated", 0).at("gates").at(0);
    const auto last = static_cast<double>(count - 1);
    EXPECT_NEAR(gate.at("p10").get<double>(), 0.1 * last, 1e-6 * last);
    EXPECT_NEAR(gate.at("p90").get<double>(), 0.9 * last, 1e-6 * last);
  }
}

TEST(RoutingMap, SharesOutTheWholeWeightOfEveryRead) {
  const Text text;
  for (const char* scheme : {"full_attnres", "block_attnres", "haares", "wav"}) {
    const auto model = scattered_model(small_spec(scheme));
    const nlohmann::json map = routing_map(*model, text.windows(), {});
    ASSERT_EQ(map.at("sublayers").size(), 9U) << scheme;  // and the read-out
    for (const nlohmann::json& read : map.at("sublayers")) {
      double sum = 0.0;
      for (const nlohmann::json& source : read.at("sources")) {
        sum += source.at("weight").get<double>();
      }
      EXPECT_NEAR(sum, 1.0, kRounding) << scheme;
      const auto sources = static_cast<double>(read.at("sources").size());
      EXPECT_GE(read.at("entropy").get<double>(), 0.0);
      EXPECT_LE(read.at("entropy").get<double>(), std::log(sources) + kRounding);
    }
  }
}

}  // namespace
}  // namespace wavroute
