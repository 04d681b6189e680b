// The decoder's own parts: rotation, heads, precisions, cost.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "model/cost.h"
#include "model/sublayer.h"
#include "ops/heads.h"
#include "tests/model/small_model.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

at::Tensor rotated(const at::Tensor& x, int64_t first, double theta) {
  return ops::rotate(x, ops::rope_table(first, x.size(1), x.size(3), theta, at::kDouble));
}

at::Tensor random_heads(int64_t length) {
  return (random_tokens(2, length * 3 * 8, "heads").to(at::kDouble) / 17.0 - 0.5)
      .view({2, length, 3, 8});
}

TEST(Rotate, TurnsEachPairByItsPositionTimesItsFrequency) {
  const at::Tensor x = random_heads(5);
  const at::Tensor turned = rotated(x, 3, 10000.0);
  const auto before = x.accessor<double, 4>();
  const auto after = turned.accessor<double, 4>();
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t n = 0; n < 3; ++n) {
        for (int64_t i = 0; i < 4; ++i) {  // the partner of channel i is i + width / 2
          const double angle =
              static_cast<double>(t + 3) * std::pow(10000.0, -2.0 * static_cast<double>(i) / 8.0);
          const double a = before[b][t][n][i], c = before[b][t][n][i + 4];
          EXPECT_NEAR(after[b][t][n][i], a * std::cos(angle) - c * std::sin(angle), 1e-13);
          EXPECT_NEAR(after[b][t][n][i + 4], c * std::cos(angle) + a * std::sin(angle), 1e-13);
        }
      }
    }
  }
}

TEST(Rotate, KeepsNormsAndMakesProductsDependOnTheDistanceAlone) {
  const at::Tensor x = random_heads(6);
  EXPECT_LE(difference(rotated(x, 100, 10000.0).square().sum(3), x.square().sum(3)), 1e-13);
  const auto products = [&](int64_t first) {
    const at::Tensor turned = rotated(x, first, 500.0);
    return (turned.narrow(1, 0, 5) * turned.narrow(1, 1, 5)).sum(3);
  };
  EXPECT_LE(difference(products(0), products(1000)), 1e-11);
  EXPECT_TRUE(at::equal(rotated(x.narrow(1, 0, 1), 0, 500.0), x.narrow(1, 0, 1)));
}

TEST(Rotate, OfTheLaterPositionsIsTheTailOfTheWhole) {
  const at::Tensor x = random_heads(6);
  EXPECT_TRUE(
      at::equal(rotated(x.narrow(1, 4, 2), 4, 500.0), rotated(x, 0, 500.0).narrow(1, 4, 2)));
}

TEST(GroupedHeads, AreFullHeadsWithRepeatedWeights) {
  DecoderSpec grouped = small_spec("prenorm");
  grouped.model.heads = 4;
  grouped.model.kv_heads = 2;
  DecoderSpec full = grouped;
  full.model.kv_heads = 4;
  const auto a = scattered_model(grouped), b = scattered_model(full);
  const NamedTensors values = values_of(*a);
  const at::NoGradGuard no_grad;
  for (Parameter& parameter : b->parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      at::Tensor source = values.at(slice.name);
      if (slice.rows != source.size(0)) {  // [kv_heads * width, d]: head h reads head floor(h / 2)
        source = source.view({2, 4, 16}).repeat_interleave(2, 0).view({16, 16});
      }
      parameter.rows(slice, parameter.value).copy_(source);
    }
  }
  const at::Tensor ids = random_tokens(2, 9);
  EXPECT_LE(difference(logits_of(*a, ids), logits_of(*b, ids)), 1e-12);
}

TEST(Decoder, RefusesSizesThatDoNotFit) {
  const auto refused = [](auto change) {
    DecoderSpec spec = small_spec("prenorm");
    change(spec);
    try {
      static_cast<void>(fresh_model(spec));
      return false;
    } catch (const UserError&) {
      return true;
    }
  };
  EXPECT_FALSE(refused([](DecoderSpec&) {}));
  EXPECT_TRUE(refused([](DecoderSpec& s) { s.model.heads = 3; }));
  EXPECT_TRUE(refused([](DecoderSpec& s) { s.model.heads = 16; }));  // an odd head width
  EXPECT_TRUE(refused([](DecoderSpec& s) { s.model.kv_heads = 3; }));
  EXPECT_TRUE(refused([](DecoderSpec& s) { s.model.layers = 0; }));
  EXPECT_TRUE(refused([](DecoderSpec& s) { s.model.hidden = -1; }));
  EXPECT_TRUE(refused([](DecoderSpec& s) { s.vocab_size = 0; }));
}

TEST(Decoder, WithoutTheRestGivesTheLastLogitsAlone) {
  const auto model = scattered_model(small_spec("wav"));
  const at::Tensor ids = random_tokens(2, 9);
  ForwardOptions options;
  options.last_only = true;
  const at::Tensor last = model->forward(ids, options).logits;
  EXPECT_EQ(last.sizes(), (std::vector<int64_t>{2, 1, 17}));
  EXPECT_LE(difference(last, logits_of(*model, ids).narrow(1, 8, 1)), 1e-12);
}

TEST(Decoder, TakesNoMemoryForPositionsThatNobodyAsksFor) {
  DecoderSpec spec = small_spec("prenorm");
  const auto plain = scattered_model(spec);
  spec.model.context = std::numeric_limits<int32_t>::max();  // the most that is taken
  const auto patient = scattered_model(spec);
  const at::Tensor ids = random_tokens(2, 9);
  EXPECT_TRUE(at::equal(logits_of(*patient, ids), logits_of(*plain, ids)));
}

TEST(Decoder, RefusesIdsThatAreNoTokens) {
  for (const KernelChoice kernels : {KernelChoice::kFused, KernelChoice::kComposed}) {
    const auto model = fresh_model(small_spec("wav"), Precision::kFp32);
    model->use_kernels(kernels);
    const at::Tensor ids = random_tokens(2, 9);
    for (const int64_t id : {int64_t{17}, int64_t{-1}, int64_t{1} << 40}) {
      at::Tensor wrong = ids.clone();
      wrong[1][4] = id;
      EXPECT_THROW(static_cast<void>(logits_of(*model, wrong)), UserError);
      EXPECT_THROW(static_cast<void>(training_pass(*model, wrong, ids, {})), UserError);
      EXPECT_THROW(static_cast<void>(training_pass(*model, ids, wrong, {})), UserError);
    }
  }
}

// What a stream that begins again has kept is what a new one computes.
TEST(Decoder, DecodesTheSameBitsWithAKeptStreamAndWithNewOnes) {
  for (const SchemeCase& c : scheme_cases()) {
    for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
      const auto model = scattered_model(small_spec(c), precision);
      const at::Tensor ids = random_tokens(2, 9);
      const auto decode = [&](bool keeps) {
        InferenceState state = model->inference_state(2, 9);
        ForwardOptions options;
        options.state = &state;
        std::vector<at::Tensor> logits;
        for (const auto& [begin, length] :
             std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {3, 1}, {4, 1}, {5, 2}, {7, 1}}) {
          if (!keeps) state.stream.reset();
          logits.push_back(model->forward(ids.narrow(1, begin, length), options).logits);
        }
        return at::cat(logits, 1);
      };
      EXPECT_TRUE(at::equal(decode(true), decode(false))) << c.label;
    }
  }
}

TEST(Decoder, KeepsTheStreamOfARoutedModelBetweenTokens) {
  const auto model = scattered_model(small_spec("wav"), Precision::kFp32);
  InferenceState state = model->inference_state(1, 4);
  ForwardOptions options;
  options.state = &state;
  const at::Tensor ids = random_tokens(1, 3);
  static_cast<void>(model->forward(ids.narrow(1, 0, 1), options));
  const Stream* kept = state.stream.get();
  ASSERT_NE(kept, nullptr);
  static_cast<void>(model->forward(ids.narrow(1, 1, 1), options));
  EXPECT_EQ(state.stream.get(), kept);
  // A pass with taps runs on stock operators: it neither uses nor leaves one.
  RecordingTaps taps;
  options.taps = &taps;
  static_cast<void>(model->forward(ids.narrow(1, 2, 1), options));
  EXPECT_EQ(state.stream, nullptr);
}

TEST(Decoder, RefusesMoreTokensThanItsCacheHolds) {
  const auto model = fresh_model(small_spec("prenorm"));
  InferenceState state = model->inference_state(2, 8);
  ForwardOptions options;
  options.state = &state;
  EXPECT_THROW(static_cast<void>(model->forward(random_tokens(2, 9), options)), Failure);
  EXPECT_EQ(state.positions, (std::vector<int64_t>{0, 0}));
}

TEST(TiedEmbeddings, HaveNoOutputMatrixAndCollectBothGradients) {
  DecoderSpec spec = small_spec("prenorm");
  const auto untied = scattered_model(spec);
  spec.model.tie_embeddings = true;
  const auto tied = scattered_model(spec);
  EXPECT_FALSE(values_of(*tied).contains("lm_head.weight"));
  const at::NoGradGuard no_grad;
  const NamedTensors values = values_of(*tied);
  for (Parameter& parameter : untied->parameters().parameters()) {
    if (parameter.slices[0].name == "lm_head.weight") {
      parameter.value.copy_(values.at("model.embed_tokens.weight"));
    }
  }
  const NamedTensors apart = record_pass(*untied, training()).gradients;
  const NamedTensors together = record_pass(*tied, training()).gradients;
  const at::Tensor sum = apart.at("model.embed_tokens.weight") + apart.at("lm_head.weight");
  EXPECT_LE(difference(together.at("model.embed_tokens.weight"), sum), 1e-12);
}

TEST(Bf16, KeepsGradientsAndTheStreamInFp32) {
  for (const SchemeCase& c : scheme_cases()) {
    const auto narrow = fresh_model(small_spec(c), Precision::kBf16);
    const auto wide = fresh_model(small_spec(c), Precision::kFp32);
    const PassRecord actual = record_pass(*narrow, training());
    const PassRecord expected = record_pass(*wide, training());
    EXPECT_EQ(actual.logits.scalar_type(), at::kFloat);
    for (const auto& [name, gradient] : actual.gradients) {
      ASSERT_EQ(gradient.scalar_type(), at::kFloat) << name;
    }
    for (const Parameter& parameter : narrow->parameters().parameters()) {
      EXPECT_EQ(parameter.value.scalar_type(), at::kFloat);
      // Folded: nothing is left beside the flat gradients.
      if (!parameter.compute.is_same(parameter.value)) {
        EXPECT_FALSE(parameter.compute.grad().defined()) << parameter.slices[0].name;
      }
    }
    // bf16 rounds to 2^-9 of a value, at every product of a layer.
    for (const char* name :
         {"model.layers.0.mlp.gate_proj.weight", "lm_head.weight", "model.embed_tokens.weight"}) {
      const at::Tensor a = actual.gradients.at(name), b = expected.gradients.at(name);
      if (b.norm().item<double>() == 0.0) continue;  // a layer that was left out, or scaled by 0
      EXPECT_LT(((a - b).norm() / b.norm()).item<double>(), 0.02) << c.label << " " << name;
    }
  }
}

TEST(Cost, CountsTheMatrixProductsAndTheCausalHalfOfAttention) {
  DecoderSpec spec = small_spec("prenorm");  // d 16, hidden 24, 2 heads, 1 key-value head, V 17
  const auto model = fresh_model(spec);
  // Per layer: q and o 16 x 16, k and v 16 x 8, gate, up and down 16 x 24; a product is 2 FLOPs per
  // weight. Attention: scores and sums over half the context, 2 products of 16 channels.
  const double layer = 2.0 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24) + 2.0 * 2.0 * 5 * 16;
  const double forward = 4 * layer + 2.0 * 16 * 17;
  EXPECT_EQ(forward_flops_per_token(model->spec(), model->residual(), 10), forward);
  const double at_context = forward - 4 * (2.0 * 2.0 * 0.5 * 16);  // a context of 9
  EXPECT_EQ(training_flops_per_token(model->spec(), model->residual()), 3.0 * at_context);
}

TEST(Cost, AddsTheGatesOfTheGatedScheme) {
  const auto plain = fresh_model(small_spec("prenorm")), gated = fresh_model(small_spec("gated"));
  const double extra = forward_flops_per_token(gated->spec(), gated->residual(), 10) -
                       forward_flops_per_token(plain->spec(), plain->residual(), 10);
  EXPECT_EQ(extra, 8 * 2.0 * (2 * 4 * 16 + 1 * 2));  // W1 [2, 64] and W2 [1, 2] at 8 sublayers
}

TEST(Parameters, OfEverySchemeAreCountedByHand) {
  constexpr int64_t d = 16, layers = 4, sublayers = 8;
  constexpr int64_t layer = 2 * d * d + 2 * d * 8 + 3 * d * 24 + 2 * d;
  constexpr int64_t plain = 2 * 17 * d + layers * layer + d;
  constexpr int64_t routers =
      sublayers;  // one before each sublayer but the first, and the read-out
  const std::map<std::string, int64_t> extra = {
      {"prenorm", 0},
      {"rezero", sublayers},
      {"layerscale", sublayers * d},
      {"block_layerscale", 2 * d},
      {"layerdrop", 0},
      {"gated", sublayers * (2 * 4 * d + 2 + 1)},
      {"act", (layers - 1) * (d + 1)},
      {"denseformer", layers * (layers + 3) / 2},
      // A norm over 4 streams, 4 + 4 + 24 logits of them with their biases, three scales.
      {"mhc_lite", sublayers * (4 * d + 32 * 4 * d + 32 + 3)},
      {"full_attnres", routers * 2 * d},
      {"block_attnres", routers * 2 * d},
      {"haares", routers * (2 * d + 1)},
      {"wav", routers * (2 * d + 2)},
  };
  for (const auto& [scheme, count] : extra) {
    EXPECT_EQ(fresh_model(small_spec(scheme))->parameters().count(), plain + count) << scheme;
  }
  // Without norms: two vectors a layer less. One stored layer and one halting unit.
  const auto bare = fresh_model(small_spec("rezero", {{"norm", std::string("none")}}));
  EXPECT_EQ(bare->parameters().count(), plain + sublayers - layers * 2 * d);
  const auto shared = fresh_model(small_spec("act", {{"shared", true}}));
  EXPECT_EQ(shared->parameters().count(), plain - 3 * layer + d + 1);
}

}  // namespace
}  // namespace wavroute
