// Tokens that are decoded by a recording, on the emulator or on a GPU, against those of passes that
// run as they are and of the CPU's back end.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "model/generate.h"
#include "model/recorded_tokens.h"
#include "tests/model/small_model.h"
#include "tests/ops/tested_backend.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using ::testing::HasSubstr;

constexpr int64_t kPrompt = 4, kTokens = 13;

std::unique_ptr<Decoder> tested_model(const DecoderSpec& spec,
                                      Precision precision = Precision::kFp32) {
  auto model = scattered_model(spec, precision, ops::tested_device());
  model->use_backend(ops::make_tested_backend());
  return model;
}
std::unique_ptr<Decoder> cpu_model(const DecoderSpec& spec,
                                   Precision precision = Precision::kFp32) {
  auto model = scattered_model(spec, precision);
  model->use_kernels(KernelChoice::kFused);
  return model;
}

// The logits of a prompt's last token and of all tokens after it, of each sequence.
struct Decoded {
  at::Tensor logits;
  bool is_recorded = false;
  std::string trouble;
};
Decoded decode(const Decoder& model, const at::Tensor& ids, bool records,
               const LayerProgram* program = nullptr) {
  InferenceState state = model.inference_state(ids.size(0), ids.size(1), program);
  state.records = records;
  ForwardOptions options;
  options.state = &state;
  options.program = program;
  options.last_only = true;
  std::vector<at::Tensor> logits;
  int64_t begin = 0;
  for (const int64_t length : prompt_and_tokens(kPrompt, ids.size(1))) {
    logits.push_back(model.forward(ids.narrow(1, begin, length), options).logits);
    begin += length;
  }
  return {at::cat(logits, 1).cpu(), state.tokens != nullptr && state.tokens->is_recorded(),
          state.trouble};
}

// Bits on the emulator; a GPU's libraries may choose kernels by where memory lies.
void expect_same(const at::Tensor& actual, const at::Tensor& expected) {
  if (ops::tested_device().is_cuda()) {
    EXPECT_LE(error_of(actual, expected.to(at::kDouble)), 1e-5);
  } else {
    EXPECT_TRUE(at::equal(actual, expected)) << difference(actual, expected);
  }
}

// [kept] tokens of each prompt, the best ones.
std::vector<std::vector<uint32_t>> best_tokens(const Decoder& model, std::string* trouble,
                                               const std::vector<std::vector<uint32_t>>& prompts) {
  const Sampling sampling{.temperature = 0.0};
  GenerationResult result = generate(model, prompts, kTokens - kPrompt, sampling, nullptr, {},
                                     [](size_t, uint32_t) { return true; });
  *trouble = result.trouble;
  return result.ids;
}

class RecordedDecoding : public ::testing::TestWithParam<SchemeCase> {};
INSTANTIATE_TEST_SUITE_P(
    Registry, RecordedDecoding,
    ::testing::Values(
        SchemeCase{"prenorm", "prenorm", {}}, SchemeCase{"wav", "wav", {}},
        SchemeCase{"haares", "haares", {}}, SchemeCase{"full_attnres", "full_attnres", {}, 2},
        SchemeCase{"gated", "gated", {}, 2},
        SchemeCase{"gated_by_the_prompt", "gated", {{"gate_reuse", std::string("prompt")}}, 2},
        SchemeCase{"denseformer_dilated",
                   "denseformer",
                   {{"dilation", int64_t{2}}, {"period", int64_t{3}}},
                   6},
        SchemeCase{"mhc_lite", "mhc_lite", {}, 2}),
    [](const auto& info) { return info.param.label; });

TEST_P(RecordedDecoding, HasTheLogitsOfPassesThatRunAsTheyAreAndOfTheCpu) {
  const DecoderSpec spec = small_spec(GetParam());
  const at::Tensor ids = random_tokens(2, kTokens);
  const auto model = tested_model(spec);
  const Decoded recorded = decode(*model, ids, /*records=*/true);
  EXPECT_TRUE(recorded.is_recorded) << recorded.trouble;
  const Decoded direct = decode(*model, ids, /*records=*/false);
  EXPECT_FALSE(direct.is_recorded);
  expect_same(recorded.logits, direct.logits);
  const at::Tensor cpu = decode(*cpu_model(spec), ids, true).logits;
  EXPECT_LE(error_of(recorded.logits, cpu.to(at::kDouble)), 1e-5);
}

// Prompts of unlike lengths, and more of them than are decoded together.
TEST_P(RecordedDecoding, GivesTheTokensOfTheCpu) {
  const DecoderSpec spec = small_spec(GetParam());
  const std::vector<std::vector<uint32_t>> prompts = {{3, 5}, {7, 1, 2, 9, 11}, {4}};
  std::string trouble, none;
  EXPECT_EQ(best_tokens(*tested_model(spec), &trouble, prompts),
            best_tokens(*cpu_model(spec), &none, prompts));
  EXPECT_EQ(trouble, "");
}

TEST(RecordedDecodingInBf16, HasTheLogitsOfPassesThatRunAsTheyAre) {
  const auto model = tested_model(small_spec("wav"), Precision::kBf16);
  const at::Tensor ids = random_tokens(2, kTokens);
  const Decoded recorded = decode(*model, ids, true);
  EXPECT_TRUE(recorded.is_recorded) << recorded.trouble;
  expect_same(recorded.logits, decode(*model, ids, false).logits);
}

// On the stock operators of a bank, some of whose blocks have no layer.
TEST(RecordedDecodingOfPrograms, HasTheLogitsOfPassesThatRunAsTheyAre) {
  for (const char* scheme : {"prenorm", "wav", "denseformer"}) {
    const auto model = tested_model(small_spec(scheme, {}, 6));
    const LayerProgram program({4, 2, 2, 5}, 6);
    const at::Tensor ids = random_tokens(1, kTokens);
    const Decoded recorded = decode(*model, ids, true, &program);
    EXPECT_TRUE(recorded.is_recorded) << scheme << ": " << recorded.trouble;
    expect_same(recorded.logits, decode(*model, ids, false, &program).logits);
  }
}

// Whoever halts is known to the host alone.
TEST(RecordedDecodingOfAct, RunsAsItIsAndSaysWhy) {
  const DecoderSpec spec = small_spec("act", {}, 2);
  const auto model = tested_model(spec);
  const at::Tensor ids = random_tokens(1, kTokens);
  const Decoded decoded = decode(*model, ids, true);
  EXPECT_FALSE(decoded.is_recorded);
  EXPECT_NE(decoded.trouble, "");
  const at::Tensor cpu = decode(*cpu_model(spec), ids, true).logits;
  EXPECT_LE(error_of(decoded.logits, cpu.to(at::kDouble)), 1e-5);
}

TEST(RecordedDecodingOfWideHeads, RunsAsItIsAndSaysWhy) {
  DecoderSpec spec = small_spec("prenorm", {}, 1);
  spec.model.width = 544;
  const Decoded decoded = decode(*tested_model(spec), random_tokens(1, kPrompt + 3), true);
  EXPECT_FALSE(decoded.is_recorded);
  EXPECT_THAT(decoded.trouble, HasSubstr("length from the host"));
}

// The second turn keeps the memory of the first, and so its recording; a third has more tokens than
// that has room for. Gates forget.
TEST(RecordedContinuation, GivesTheTokensOfTheCpu) {
  for (const char* scheme : {"wav", "gated"}) {
    const DecoderSpec spec = small_spec(scheme, {}, 2);
    const auto tested = tested_model(spec), cpu = cpu_model(spec);
    const Sampling sampling{.temperature = 0.0};
    const auto tokens_of = [&](const Decoder& model) {
      Continuation continuation(model, nullptr);
      std::vector<uint32_t> text = {3, 5, 7, 1, 2, 9, 4, 8};
      for (const auto& [added, tokens] : {std::pair{1U, 8}, {2U, 4}, {3U, 20}}) {
        const GenerationResult result =
            continuation.run(text, tokens, sampling, [](size_t, uint32_t) { return true; });
        EXPECT_EQ(result.trouble, "");
        text.insert(text.end(), result.ids[0].begin(), result.ids[0].begin() + 2);
        text.push_back(added);
      }
      return text;
    };
    EXPECT_EQ(tokens_of(*tested), tokens_of(*cpu)) << scheme;
  }
}

}  // namespace
}  // namespace wavroute
