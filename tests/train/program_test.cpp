// Losses under layer programs, and the predictor that chooses one.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>

#include "model/program_choice.h"
#include "tests/model/small_model.h"
#include "tests/random_values.h"
#include "tests/temporary_folder.h"
#include "train/program_losses.h"
#include "train/program_predictor.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr int64_t kTokens = 11;

Batch random_batch(int64_t rows) {
  return {random_tokens(rows, kTokens), random_tokens(rows, kTokens, "targets")};
}

// Nats of each token from logits of a pass without a cache.
at::Tensor direct_losses(const Decoder& model, const Batch& batch, const LayerProgram& program) {
  ForwardOptions options;
  options.program = &program;
  const at::Tensor chances =
      at::log_softmax(model.forward(batch.inputs, options).logits.to(at::kDouble), -1);
  return -chances.gather(2, batch.targets.unsqueeze(2)).squeeze(2);
}

TEST(ProgramLosses, AreThoseOfAPassWithoutACacheAfterThePrompt) {
  for (const char* scheme : {"prenorm", "wav"}) {
    const auto model = scattered_model(small_spec(scheme), Precision::kFp32);
    const Batch batch = random_batch(3);
    const LayerProgram program = LayerProgram::parse("0,2x2,3", 4);
    for (const int64_t prompt : {0, 1, 4}) {
      const std::vector<double> losses = program_losses(*model, batch, program, prompt);
      ASSERT_EQ(losses.size(), 3U);
      // The prediction of the token after the prompt is the first that counts.
      const int64_t first = std::max<int64_t>(prompt - 1, 0);
      const at::Tensor expected =
          direct_losses(*model, batch, program).narrow(1, first, kTokens - first).mean(1);
      for (int64_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(losses[static_cast<size_t>(i)], expected[i].item<double>(), 1e-5);
      }
    }
  }
}

TEST(ProgramLosses, LeaveOutWhatIsNotScored) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  Batch batch = random_batch(1);
  const LayerProgram program(4);
  const at::Tensor each = direct_losses(*model, batch, program);
  batch.targets[0].narrow(0, 5, kTokens - 5).fill_(EvalWindows::kIgnored);
  EXPECT_NEAR(program_losses(*model, batch, program, 0)[0],
              each[0].narrow(0, 0, 5).mean().item<double>(), 1e-5);
}

// Texts whose first feature says which of two programs has the lower loss.
ProgramScores planted_scores(int64_t texts, const std::string& name) {
  ProgramScores scores;
  scores.features = random_values({texts, 5}, name, at::kDouble);
  const at::Tensor hardness = random_values({texts}, name + " hardness", at::kDouble) + 3.0;
  const at::Tensor first = scores.features.select(1, 0);
  scores.losses = at::stack({hardness + first, hardness - first}, 1);
  return scores;
}

TEST(ProgramPredictor, FindsALinearRule) {
  const ProgramScores scores = planted_scores(60, "fitted");
  const ProgramFit fit = fit_programs(scores, std::vector<int64_t>{3, 3}, 3.0);
  EXPECT_EQ(fit.price, 0.0);  // programs of one length: nothing to pay for
  const ProgramChoice choice({{LayerProgram::parse("0-2", 4), LayerProgram::parse("1-3", 4)},
                              1,
                              fit.mean,
                              fit.scale,
                              fit.weights,
                              fit.bias,
                              fit.price,
                              4,
                              ""});
  const ProgramScores others = planted_scores(200, "others");
  int64_t right = 0;
  for (int64_t i = 0; i < 200; ++i) {
    const bool first_is_lower = others.features[i][0].item<double>() < 0.0;
    right += choice.choose(others.features[i]) == (first_is_lower ? 0U : 1U) ? 1 : 0;
  }
  EXPECT_GE(right, 190);
}

// The closed form against the same fit without each text in turn. (The means, of features and of
// losses, are those of all texts in both.)
TEST(ProgramPredictor, PaysForLayersSoThatEachTextPredictedFromTheOthersIsShortEnough) {
  const ProgramScores scores = planted_scores(24, "fitted");
  const std::vector<int64_t> lengths = {2, 4};
  const ProgramFit fit = fit_programs(scores, lengths, 2.5);
  EXPECT_GT(fit.price, 0.0);
  EXPECT_LE(fit.mean_layers, 2.5);
  const at::Tensor x = (scores.features - fit.mean) / fit.scale;
  const at::Tensor relative = scores.losses - scores.losses.mean(1, true);
  const at::Tensor y = relative - relative.mean(0);
  double layers = 0.0, cheaper_layers = 0.0;
  for (int64_t i = 0; i < 24; ++i) {
    const at::Tensor rest = at::arange(24).ne(i).nonzero().squeeze(1);
    const at::Tensor others = x.index_select(0, rest), targets = y.index_select(0, rest);
    const at::Tensor system = at::mm(others.t(), others) + fit.ridge * at::eye(5, others.options());
    const at::Tensor w = at::linalg_solve(system, at::mm(others.t(), targets));
    const at::Tensor predicted = at::mv(w.t(), x[i]) + fit.bias;
    const auto length_at = [&](double price) {
      const double a = predicted[0].item<double>() + price * 2.0;
      const double b = predicted[1].item<double>() + price * 4.0;
      return a <= b ? 2.0 : 4.0;
    };
    layers += length_at(1.0001 * fit.price) / 24.0;  // at the price itself two choices are equal
    cheaper_layers += length_at(0.99 * fit.price) / 24.0;
  }
  EXPECT_NEAR(layers, fit.mean_layers, 1e-9);
  EXPECT_GT(cheaper_layers, 2.5);  // the least such price
}

ProgramChoice small_choice(const Decoder& model) {
  const int64_t d = model.spec().model.width;
  return ProgramChoice({{LayerProgram::parse("0,2x2", 4), LayerProgram(4)},
                        3,
                        random_values({d}, "mean", at::kDouble),
                        random_values({d}, "scale", at::kDouble).abs() + 0.1,
                        random_values({2, d}, "weights", at::kDouble),
                        random_values({2}, "bias", at::kDouble),
                        0.01,
                        4,
                        "hash"});
}

TEST(ProgramChoice, IsReadAsItWasWritten) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  const ProgramChoice choice = small_choice(*model);
  const TemporaryFolder folder;
  choice.write(folder / "p.json");
  const ProgramChoice again = ProgramChoice::read(folder / "p.json", *model, "hash");
  ASSERT_EQ(again.programs().size(), 2U);
  EXPECT_EQ(again.programs()[0].text(), "0,2x2");
  EXPECT_EQ(again.prompt(), 3);
  for (int i = 0; i < 50; ++i) {
    const at::Tensor x =
        3.0 * random_values({model->spec().model.width}, std::to_string(i), at::kDouble);
    EXPECT_EQ(again.choose(x), choice.choose(x));
  }
}

TEST(ProgramChoice, RefusesAnotherModelsAndBrokenFiles) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  const TemporaryFolder folder;
  small_choice(*model).write(folder / "p.json");
  const auto read = [&](const Decoder& of, const std::string& hash) {
    static_cast<void>(ProgramChoice::read(folder / "p.json", of, hash));
  };
  EXPECT_THROW(read(*model, "other"), UserError);
  DecoderSpec deeper = small_spec("prenorm", {}, 6);
  EXPECT_THROW(read(*scattered_model(deeper, Precision::kFp32), "hash"), UserError);
  for (const char* text : {"{}", "[]", R"({"kind": "wavroute program predictor"})", "{"}) {
    put(folder / "p.json", text);
    EXPECT_THROW(read(*model, "hash"), UserError) << text;
  }
}

TEST(PromptFeatures, AreTheMeanEmbeddingOfTheBeginning) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  const at::Tensor rows = model->embedding().value.detach().to(at::kDouble);
  const at::Tensor features = prompt_features(*model, {3, 5, 3, 1, 2}, 3);
  EXPECT_LE((features - (2.0 * rows[3] + rows[5]) / 3.0).abs().max().item<double>(), 1e-12);
}

}  // namespace
}  // namespace wavroute
