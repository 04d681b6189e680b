// Drawing tokens.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "base/philox.h"
#include "model/generate.h"
#include "tests/model/small_model.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

constexpr double kAlmostOne = 1.0 - 1e-15;

// Logits of the probabilities 0.1, 0.4, 0.2, 0.3: by likelihood the tokens are 1, 3, 2, 0.
std::vector<float> four_logits() {
  std::vector<float> logits;
  for (const double p : {0.1, 0.4, 0.2, 0.3}) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

Sampling sampling(double temperature, int64_t top_k = 0, double top_p = 1.0) {
  return {.temperature = temperature, .top_k = top_k, .top_p = top_p};
}

// How many of 1000 evenly spaced numbers draw each token.
std::vector<int> shares(const Sampling& how) {
  const std::vector<float> logits = four_logits();
  std::vector<int> counts(logits.size());
  for (int i = 0; i < 1000; ++i) ++counts[sample_token(logits, how, (i + 0.5) / 1000.0)];
  return counts;
}

TEST(SampleToken, DrawsEachTokenAsOftenAsItsProbability) {
  EXPECT_EQ(shares(sampling(1.0)), (std::vector<int>{100, 400, 200, 300}));
}

TEST(SampleToken, DividesTheLogitsByTheTemperature) {
  // At temperature 1/2 the probabilities are squared: 1, 16, 4, 9 of 30.
  const std::vector<int> counts = shares(sampling(0.5));
  EXPECT_EQ(counts, (std::vector<int>{33, 533, 134, 300}));
}

TEST(SampleToken, TakesTheLikeliestAtTemperatureZero) {
  for (const double uniform : {0.0, 0.5, kAlmostOne}) {
    EXPECT_EQ(sample_token(four_logits(), sampling(0.0), uniform), 1U);
  }
  EXPECT_EQ(sample_token(std::vector<float>{1.0F, 2.0F, 2.0F}, sampling(0.0), 0.9), 1U);
}

TEST(SampleToken, FindsTheFirstOfTheLargestAnywhere) {
  for (const size_t count : {31, 32, 33, 64, 100}) {
    for (size_t at = 0; at < count; ++at) {
      std::vector<float> logits(count, -3.0F);
      logits[at] = logits[count - 1] = -1.0F;
      EXPECT_EQ(sample_token(logits, sampling(0.0), 0.5), at) << count;
    }
  }
}

TEST(SampleToken, SeesWhatIsNotFiniteAnywhere) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const size_t count : {1, 31, 32, 33, 100}) {
    std::vector<float> logits(count, -std::numeric_limits<float>::max());
    EXPECT_TRUE(are_finite(logits));
    for (const float bad : {kInfinity, -kInfinity, std::nanf(""), -std::nanf("")}) {
      for (size_t at = 0; at < count; ++at) {
        std::vector<float> others = logits;
        others[at] = bad;
        EXPECT_FALSE(are_finite(others)) << bad << " at " << at << " of " << count;
      }
    }
  }
}

TEST(SampleToken, KeepsTheKLikeliest) {
  EXPECT_EQ(shares(sampling(1.0, 1)), (std::vector<int>{0, 1000, 0, 0}));
  EXPECT_EQ(shares(sampling(1.0, 2)), (std::vector<int>{0, 571, 0, 429}));  // 4 : 3
  EXPECT_EQ(shares(sampling(1.0, 9)), shares(sampling(1.0)));
  // Of equal logits the lower id is likelier.
  const std::vector<float> even(4, 0.5F);
  for (const double uniform : {0.0, 0.6, kAlmostOne}) {
    EXPECT_LT(sample_token(even, sampling(1.0, 2), uniform), 2U);
  }
}

TEST(SampleToken, KeepsTheLikeliestThatAddUpToP) {
  EXPECT_EQ(shares(sampling(1.0, 0, 0.39)), (std::vector<int>{0, 1000, 0, 0}));
  EXPECT_EQ(shares(sampling(1.0, 0, 0.41)), (std::vector<int>{0, 571, 0, 429}));
  EXPECT_EQ(shares(sampling(1.0, 0, 0.69)), (std::vector<int>{0, 571, 0, 429}));
  EXPECT_EQ(shares(sampling(1.0, 0, 0.71)), (std::vector<int>{0, 444, 222, 334}));  // 4 : 2 : 3
  EXPECT_EQ(shares(sampling(1.0, 0, 1e-9)), (std::vector<int>{0, 1000, 0, 0}));
}

TEST(SampleToken, CountsPAfterTopK) {
  // Of the two likeliest, 4/7 = 0.571 and 3/7: p = 0.5 needs the first alone, 0.6 both.
  EXPECT_EQ(shares(sampling(1.0, 2, 0.5)), (std::vector<int>{0, 1000, 0, 0}));
  EXPECT_EQ(shares(sampling(1.0, 2, 0.6)), (std::vector<int>{0, 571, 0, 429}));
}

TEST(SampleToken, KeepsWhatHasAShareOfTheLikeliest) {
  const auto min_p = [](double share, double temperature = 1.0, double top_p = 1.0) {
    return Sampling{.temperature = temperature, .top_p = top_p, .min_p = share};
  };
  EXPECT_EQ(shares(min_p(1.0)), (std::vector<int>{0, 1000, 0, 0}));
  EXPECT_EQ(shares(min_p(0.6)), (std::vector<int>{0, 571, 0, 429}));     // 0.24 and more
  EXPECT_EQ(shares(min_p(0.45)), (std::vector<int>{0, 444, 222, 334}));  // 0.18 and more
  // At temperature 1/2 the shares are squared, 0.5625 and 0.25 beside 1: 16 : 9.
  EXPECT_EQ(shares(min_p(0.3, 0.5)), (std::vector<int>{0, 640, 0, 360}));
  // top-p comes first: of all, 0.4 is less than 0.55, of the two that min-p keeps, 4/7 is more.
  EXPECT_EQ(shares(min_p(0.6, 1.0, 0.55)), (std::vector<int>{0, 571, 0, 429}));
}

TEST(SampleToken, PenalisesWhatWasSeenOnce) {
  const Sampling halved{.temperature = 0.0, .repetition_penalty = 2.0};
  const auto likeliest = [&](const std::vector<float>& logits, std::vector<uint32_t> seen) {
    return sample_token(logits, halved, 0.0, seen);
  };
  EXPECT_EQ(likeliest({2.0F, 1.5F}, {}), 0U);
  EXPECT_EQ(likeliest({2.0F, 1.5F}, {0}), 1U);        // 1 against 1.5
  EXPECT_EQ(likeliest({2.0F, 0.9F}, {0, 0, 0}), 0U);  // 1 against 0.9, not 0.25
  EXPECT_EQ(likeliest({-1.0F, -1.5F}, {0}), 1U);      // -2 against -1.5
  EXPECT_EQ(likeliest({-1.0F, -1.5F}, {0, 1}), 0U);   // -2 against -3
  EXPECT_THROW((void)likeliest({1.0F, 2.0F}, {2}), UserError);
}

TEST(SampleToken, StaysInTheVocabularyAtTheEndsOfTheUnitInterval) {
  EXPECT_EQ(sample_token(four_logits(), sampling(1.0), 0.0), 1U);         // the likeliest first
  EXPECT_EQ(sample_token(four_logits(), sampling(1.0), kAlmostOne), 0U);  // the least likely last
  const std::vector<float> wide = {-1e30F, 1e30F, 0.0F};
  for (const double uniform : {0.0, 0.5, kAlmostOne}) {
    EXPECT_EQ(sample_token(wide, sampling(1e-3), uniform), 1U);
  }
  EXPECT_EQ(sample_token(std::vector<float>{3.0F}, sampling(1.0), kAlmostOne), 0U);
}

TEST(SampleToken, IsCheckedForItsRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_NO_THROW(check(sampling(0.0, 0, 1.0)));
  for (const Sampling& wrong :
       {sampling(-0.1), sampling(nan), sampling(infinity), sampling(1.0, -1), sampling(1.0, 0, 0.0),
        sampling(1.0, 0, 1.1), sampling(1.0, 0, nan), Sampling{.min_p = -0.1},
        Sampling{.min_p = 1.1}, Sampling{.min_p = nan}, Sampling{.repetition_penalty = 0.0},
        Sampling{.repetition_penalty = infinity}}) {
    EXPECT_THROW(check(wrong), UserError);
  }
}

const std::vector<uint32_t> kPrompt = {3, 1, 4, 1};

std::vector<uint32_t> generated(const Decoder& model, const Sampling& how, int64_t tokens,
                                const LayerProgram* program = nullptr) {
  return generate(model, {kPrompt}, tokens, how, program, {}, [](size_t, uint32_t) { return true; })
      .ids[0];
}

TEST(Generate, RepeatsWithItsSeedAndChangesWithAnother) {
  const auto model = scattered_model(small_spec("wav"), Precision::kFp32);
  const auto with_seed = [&](uint64_t seed) {
    Sampling how = sampling(1.5);
    how.seed = seed;
    return generated(*model, how, 20);
  };
  const std::vector<uint32_t> first = with_seed(1);
  EXPECT_EQ(first.size(), 20U);
  EXPECT_EQ(with_seed(1), first);
  EXPECT_NE(with_seed(2), first);
}

TEST(Generate, UsesTheNthNumberOfItsSeedForTheNthToken) {
  const auto model = fresh_model(small_spec("prenorm"));
  set_values(*model, "lm_head.weight", 0.0);  // every token is as likely
  const Philox random(1, "sample");
  std::vector<uint32_t> expected;
  for (uint64_t n = 0; n < 20; ++n) {
    expected.push_back(static_cast<uint32_t>(random.uniform(n) * 17.0));
  }
  EXPECT_EQ(generated(*model, sampling(1.0), 20), expected);
}

TEST(Generate, DrawsEachTokenFromItsPlaceAlone) {
  const auto model = scattered_model(small_spec("gated"), Precision::kFp32);
  const std::vector<uint32_t> longer = generated(*model, sampling(1.0), 12);
  const std::vector<uint32_t> shorter = generated(*model, sampling(1.0), 5);
  EXPECT_EQ(std::vector<uint32_t>(longer.begin(), longer.begin() + 5), shorter);
}

TEST(Generate, AtTemperatureZeroFollowsTheLargestLogitOfTheWholeSequence) {
  for (const char* scheme : {"prenorm", "gated", "wav", "act"}) {
    const auto model = scattered_model(small_spec(scheme));
    std::vector<int64_t> sequence(kPrompt.begin(), kPrompt.end());
    std::vector<uint32_t> expected;
    for (int n = 0; n < 6; ++n) {
      const at::Tensor logits = logits_of(*model, at::tensor(sequence, at::kLong).unsqueeze(0));
      sequence.push_back(logits.select(1, -1).argmax().item<int64_t>());
      expected.push_back(static_cast<uint32_t>(sequence.back()));
    }
    EXPECT_EQ(generated(*model, sampling(0.0), 6), expected) << scheme;
  }
}

TEST(Generate, RunsAProgram) {
  const auto model = scattered_model(small_spec("wav"));
  const LayerProgram all(4), some = LayerProgram::parse("0,2", 4);
  const std::vector<uint32_t> plain = generated(*model, sampling(0.0), 12);
  EXPECT_EQ(generated(*model, sampling(0.0), 12, &all), plain);
  EXPECT_NE(generated(*model, sampling(0.0), 12, &some), plain);
}

const std::vector<std::vector<uint32_t>> kPrompts = {
    {3, 1, 4, 1}, {5}, {9, 2, 6, 5, 3, 5, 8, 9, 7, 9}, {1, 1}, {2, 2}, {3, 3}, {4}, {5, 6}, {7, 8}};

TEST(Generate, EveryPromptOfABatchGetsTheTokensThatItGetsAlone) {
  for (const Precision precision : {Precision::kFp64, Precision::kFp32, Precision::kBf16}) {
    for (const char* scheme : {"prenorm", "gated", "wav", "act", "mhc_lite"}) {
      SCOPED_TRACE(scheme);
      const auto model = scattered_model(small_spec(scheme), precision);
      const auto whole = generate(*model, kPrompts, 9, sampling(1.0), nullptr, {},
                                  [](size_t, uint32_t) { return true; });
      for (size_t b = 0; b < kPrompts.size(); ++b) {
        const auto alone = generate(*model, {kPrompts[b]}, 9, sampling(1.0), nullptr, {},
                                    [](size_t, uint32_t) { return true; });
        EXPECT_EQ(whole.ids[b], alone.ids[0]) << b;
      }
    }
  }
}

TEST(Generate, APromptOfABatchMayStopBeforeTheOthers) {
  const auto model = scattered_model(small_spec("wav"));
  const auto run = [&](size_t stopped, size_t after) {
    std::vector<size_t> counts(kPrompts.size());
    return generate(*model, kPrompts, 9, sampling(1.0), nullptr, {}, [&](size_t b, uint32_t) {
      ++counts[b];
      return b != stopped || counts[b] < after;
    });
  };
  auto expected = run(kPrompts.size(), 0).ids;
  for (size_t b = 0; b < kPrompts.size(); ++b) {
    const auto found = run(b, 2).ids;
    EXPECT_EQ(found[b], std::vector<uint32_t>(expected[b].begin(), expected[b].begin() + 2));
    for (size_t other = 0; other < kPrompts.size(); ++other) {
      if (other == b) continue;
      EXPECT_EQ(found[other], expected[other]);
    }
  }
}

TEST(Generate, WithQuantisedMatricesIsThatOfStockOperators) {
  DecoderSpec spec = small_spec("wav");
  spec.model.width = 64;
  spec.model.hidden = 96;
  const auto blocks = scattered_model(spec, Precision::kFp32);
  const auto stock = scattered_model(spec, Precision::kFp32);
  stock->use_kernels(KernelChoice::kComposed);
  const auto exact = scattered_model(spec, Precision::kFp64);  // stock operators as well
  for (const auto& model : {blocks.get(), stock.get(), exact.get()}) model->quantise();
  const at::Tensor ids = at::tensor({3, 1, 4, 1, 5, 9, 2, 6, 5, 3}, at::kLong).view({2, 5});
  for (const int64_t first : {4, 1}) {  // a prompt, and then token by token
    const auto logits = [&](const Decoder& model) {
      InferenceState state = model.inference_state(2, 8);
      std::vector<at::Tensor> all;
      for (int64_t t = 0; t < 5; t += t == 0 ? first : 1) {
        ForwardOptions options;
        options.state = &state;
        const at::Tensor next = ids.narrow(1, t, t == 0 ? first : 1);
        all.push_back(model.forward(next, options).logits.to(at::kDouble));
      }
      return at::cat(all, 1);
    };
    // Large random weights enlarge the rounding of fp32, on either back end.
    const at::Tensor expected = logits(*exact);
    const double rounding = difference(logits(*stock), expected);
    EXPECT_LE(difference(logits(*blocks), expected), 8 * rounding);
    EXPECT_LE(rounding, 1e-3 * expected.abs().max().item<double>());
  }
  spec.model.hidden = 100;
  const auto odd = scattered_model(spec, Precision::kFp32);
  EXPECT_THROW(odd->quantise(), UserError);
}

// A conversation in which turn after turn is added, taken back and changed.
const std::vector<std::vector<uint32_t>> kTurns = {{3, 1, 4, 1}, {3, 1, 4, 1, 5, 9, 2, 6},
                                                   {3, 1, 4},    {3, 1, 4},
                                                   {2, 7, 1},    {2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4}};
// Of these, in turn, the tokens that are known from the turn before.
const std::vector<size_t> kKnown = {0, 4, 2, 2, 0, 3};

TEST(Continuation, GivesTheTokensOfAPromptThatIsReadAsAWhole) {
  for (const Precision precision : {Precision::kFp64, Precision::kFp32}) {
    for (const char* scheme : {"prenorm", "gated", "wav", "act", "mhc_lite", "denseformer"}) {
      SCOPED_TRACE(scheme);
      const auto model = scattered_model(small_spec(scheme), precision);
      Continuation continuation(*model, nullptr);
      for (size_t turn = 0; turn < kTurns.size(); ++turn) {
        const auto& prompt = kTurns[turn];
        const auto until_end = [](size_t, uint32_t) { return true; };
        const auto expected = generate(*model, {prompt}, 5, sampling(0.0), nullptr, {}, until_end);
        const auto result = continuation.run(prompt, 5, sampling(0.0), until_end);
        EXPECT_EQ(result.ids, expected.ids) << turn;
        // What the model itself wrote counts as known as well.
        const size_t known = std::string(scheme) == "gated" ? 0 : kKnown[turn];
        EXPECT_GE(continuation.reused(), known) << turn;
        EXPECT_LT(continuation.reused(), prompt.size()) << turn;
      }
    }
  }
}

TEST(Continuation, KnowsWhatItWroteItself) {
  const auto model = scattered_model(small_spec("wav"));
  Continuation continuation(*model, nullptr);
  const auto until_end = [](size_t, uint32_t) { return true; };
  std::vector<uint32_t> text = kPrompt;
  const auto first = continuation.run(text, 5, sampling(0.0), until_end).ids[0];
  text.insert(text.end(), first.begin(), first.end());
  text.push_back(2);
  (void)continuation.run(text, 5, sampling(0.0), until_end);
  // The last token of the answer was drawn, but never read.
  EXPECT_EQ(continuation.reused(), kPrompt.size() + 4);
}

TEST(Continuation, GoesOnDrawing) {
  const auto model = fresh_model(small_spec("prenorm"));
  set_values(*model, "lm_head.weight", 0.0);  // every token is as likely
  const std::vector<uint32_t> expected = generated(*model, sampling(1.0), 8);
  Continuation continuation(*model, nullptr);
  std::vector<uint32_t> drawn;
  for (int turn = 0; turn < 2; ++turn) {
    const auto result =
        continuation.run(kPrompt, 4, sampling(1.0), [](size_t, uint32_t) { return true; });
    drawn.insert(drawn.end(), result.ids[0].begin(), result.ids[0].end());
  }
  EXPECT_EQ(drawn, expected);
}

// What a routed model reads back lies in the pass, not in the cache.
TEST(Generate, KeepsAsMuchUnderEverySchemeAsUnderPrenorm) {
  for (const SchemeCase& c : scheme_cases()) {
    SCOPED_TRACE(c.label);
    const auto model = fresh_model(small_spec(c), Precision::kFp32);
    const ModelConfig& m = model->spec().model;
    const int64_t numbers = 2 * m.layers * m.kv_heads * m.head_width();
    const GenerationResult result =
        generate(*model, {kPrompt}, 5, {}, nullptr, {}, [](size_t, uint32_t) { return true; });
    EXPECT_EQ(result.cache_bytes,
              numbers * (std::ssize(kPrompt) + 5) * static_cast<int64_t>(sizeof(float)));
    // Gates alone keep something else: the last rows of their windows.
    EXPECT_EQ(model->residual().decode_state() != nullptr, c.scheme == "gated");
  }
}

TEST(Generate, StopsWhenItIsTold) {
  const auto model = scattered_model(small_spec("prenorm"));
  int seen = 0;
  const GenerationResult result = generate(*model, {kPrompt}, 12, sampling(1.0), nullptr, {},
                                           [&](size_t, uint32_t) { return ++seen < 3; });
  EXPECT_EQ(seen, 3);
  EXPECT_EQ(result.ids[0].size(), 3U);
}

TEST(Generate, ReportsTheMeanDepthOfNewTokens) {
  const auto plain = scattered_model(small_spec("prenorm")),
             act = scattered_model(small_spec("act"));
  const auto depth = [](const Decoder& model) {
    return generate(model, {kPrompt}, 8, sampling(1.0), nullptr, {},
                    [](size_t, uint32_t) { return true; })
        .mean_depth;
  };
  EXPECT_EQ(depth(*plain), 0.0);
  EXPECT_GE(depth(*act), 1.0);
  EXPECT_LE(depth(*act), 4.0);
}

}  // namespace
}  // namespace wavroute
