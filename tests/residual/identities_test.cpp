// Identities between schemes (docs/method.md section 6).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>

#include "model/sublayer.h"
#include "tests/model/small_model.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using Strings = std::vector<std::string>;
using ::testing::ElementsAre;
using ::testing::IsSupersetOf;

constexpr double kRounding = 1e-12;  // of float64, at values near 1

// Parameters that two models share have the same gradients.
void expect_shared_equal(const NamedTensors& actual, const NamedTensors& expected) {
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    EXPECT_LE(difference(actual.at(name), tensor), kRounding) << name;
  }
}

PassRecord prenorm_pass() {
  return record_pass(*scattered_model(small_spec("prenorm")), training());
}

RecordingTaps decisions_of(const Decoder& model) {
  RecordingTaps taps;
  ForwardOptions options;
  options.taps = &taps;
  static_cast<void>(model.forward(random_tokens(2, 9), options));
  return taps;
}

Strings source_names(const RecordingTaps::Read& read) {
  Strings names;
  for (const SourceLabel& source : read.sources) names.push_back(source.name);
  return names;
}

TEST(Wav, WithoutDetailsIsBitEqualToBlockAttnRes) {
  const auto wav =
      scattered_model(small_spec("wav", {{"blocks", int64_t{2}}, {"details", Strings{}}}));
  const auto plain = scattered_model(small_spec("block_attnres", {{"blocks", int64_t{2}}}));
  const PassRecord actual = record_pass(*wav, training());
  const PassRecord expected = record_pass(*plain, training());
  EXPECT_TRUE(at::equal(actual.logits, expected.logits));
  expect_equal(actual.gradients, expected.gradients);
}

TEST(BlockAttnRes, OfSingleSublayersIsFullAttnRes) {
  const auto blocks = scattered_model(small_spec("block_attnres", {{"blocks", int64_t{8}}}));
  const auto full = scattered_model(small_spec("full_attnres"));
  const PassRecord actual = record_pass(*blocks, training());
  const PassRecord expected = record_pass(*full, training());
  EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
  expect_equal(actual.gradients, expected.gradients, kRounding);
}

TEST(BlockAttnRes, OfOneBlockRoutesOverTheEmbeddingAndTheRunningSum) {
  const auto model = scattered_model(small_spec("block_attnres", {{"blocks", int64_t{1}}}));
  const RecordingTaps taps = decisions_of(*model);
  ASSERT_EQ(taps.reads.size(), 9U);  // 8 sublayers and the read-out
  EXPECT_THAT(source_names(taps.reads[0]), ElementsAre("e"));
  for (size_t i = 1; i < taps.reads.size(); ++i) {
    EXPECT_THAT(source_names(taps.reads[i]), ElementsAre("e", "S1")) << i;
  }
  EXPECT_FALSE(taps.reads.back().site.has_value());
}

TEST(Wav, OffersFinishedBlocksAndItsRunningSumsInTheOrderOfTheBank) {
  const auto model = scattered_model(small_spec("wav", {{"blocks", int64_t{2}}}));
  const RecordingTaps taps = decisions_of(*model);
  EXPECT_THAT(source_names(taps.reads[1]), ElementsAre("e", "S1", "P1", "Q1"));
  EXPECT_THAT(source_names(taps.reads[4]), ElementsAre("e", "S1", "P1", "Q1"));
  const auto all = ElementsAre("e", "S1", "P1", "Q1", "S2", "P2", "Q2");
  EXPECT_THAT(source_names(taps.reads[5]), all);
  EXPECT_THAT(source_names(taps.reads[8]), all);

  const auto finished_only =
      scattered_model(small_spec("wav", {{"blocks", int64_t{2}}, {"partial_details", false}}));
  const RecordingTaps finished = decisions_of(*finished_only);
  EXPECT_THAT(source_names(finished.reads[3]), ElementsAre("e", "S1"));
  EXPECT_THAT(source_names(finished.reads[7]), ElementsAre("e", "S1", "P1", "Q1", "S2"));
}

TEST(FreshRouter, SharesEvenlyAndGivesADetailEToTheBetaOfASummarysShare) {
  Strings routed;
  for (const SchemeInfo& scheme : residual_schemes()) {
    const auto model = fresh_model(small_spec(scheme.name));
    const RecordingTaps taps = decisions_of(*model);
    if (taps.reads.empty()) continue;
    routed.push_back(scheme.name);
    const Options& options = model->spec().options;
    const double beta = options.contains("beta") ? std::get<double>(options.at("beta")) : 0.0;
    for (const RecordingTaps::Read& read : taps.reads) {
      double details = 0.0;
      for (const SourceLabel& source : read.sources) {
        if (source.type == "phase" || source.type == "split") ++details;
      }
      const double summaries = static_cast<double>(read.sources.size()) - details;
      const double share = 1.0 / (summaries + details * std::exp(beta));
      for (size_t j = 0; j < read.sources.size(); ++j) {
        const bool detail = read.sources[j].type == "phase" || read.sources[j].type == "split";
        const double expected = detail ? share * std::exp(beta) : share;
        EXPECT_LE((read.weights[static_cast<int64_t>(j)] - expected).abs().max().item<double>(),
                  kRounding)
            << scheme.name << " " << read.sources[j].name;
      }
    }
  }
  EXPECT_THAT(routed, IsSupersetOf({"full_attnres", "block_attnres", "haares", "wav"}));
}

TEST(Rezero, WithUnitScalesIsPrenorm) {
  const auto model = scattered_model(small_spec("rezero"));
  set_values(*model, "_residual_scale", 1.0);
  const PassRecord expected = prenorm_pass(), actual = record_pass(*model, training());
  EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
  expect_shared_equal(actual.gradients, expected.gradients);
}

TEST(Rezero, AtInitPassesTheEmbeddingThroughUnchanged) {
  for (const char* norm : {"pre", "none"}) {
    const auto model = fresh_model(small_spec("rezero", {{"norm", std::string(norm)}}));
    const at::Tensor ids = random_tokens(2, 9);
    const at::Tensor embedding = embedded(*model, ids);
    const std::unique_ptr<Stream> stream = model->residual().open(on_backend(model->backend()));
    stream->begin(embedding);
    for (int64_t layer = 0; layer < 4; ++layer) {
      for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
        const Site site{layer, kind, layer};
        const Sublayer& f = model->sublayer(site);
        const at::Tensor update =
            f.run(stream->read_normed(site, f.norm()), model->backend(), nullptr, {});
        EXPECT_GT(update.abs().max().item<double>(), 0.0);
        stream->write(site, update);
      }
    }
    EXPECT_TRUE(at::equal(stream->read_out(), embedding));
    EXPECT_TRUE(at::equal(logits_of(*model, ids), logits_after(*model, embedding)));
  }
}

TEST(LayerScale, WithUnitScalesIsPrenorm) {
  const auto model = scattered_model(small_spec("layerscale"));
  set_values(*model, "_residual_scale", 1.0);
  const PassRecord expected = prenorm_pass(), actual = record_pass(*model, training());
  EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
  expect_shared_equal(actual.gradients, expected.gradients);
}

TEST(BlockLayerScale, WithUnitScalesIsPrenorm) {
  const auto model = scattered_model(small_spec("block_layerscale", {{"blocks", int64_t{2}}}));
  set_values(*model, "model.block_residual_scale", 1.0);
  const PassRecord expected = prenorm_pass(), actual = record_pass(*model, training());
  EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
  expect_shared_equal(actual.gradients, expected.gradients);
}

TEST(BlockLayerScale, IsLayerScaleWithTheScalesOfItsBlocks) {
  // 10 sublayers in blocks of 4, 4 and 2.
  const auto blocks = scattered_model(small_spec("block_layerscale", {{"blocks", int64_t{3}}}, 5));
  const auto single = scattered_model(small_spec("layerscale", {}, 5));
  const at::Tensor scales = values_of(*blocks).at("model.block_residual_scale");
  for (int64_t i = 0; i < 10; ++i) {
    const std::string name = "model.layers." + std::to_string(i / 2) +
                             (i % 2 == 0 ? ".self_attn" : ".mlp") + "_residual_scale";
    for (Parameter& parameter : single->parameters().parameters()) {
      const at::NoGradGuard no_grad;
      if (parameter.slices[0].name == name) parameter.value.copy_(scales[i / 4]);
    }
  }
  const at::Tensor ids = random_tokens(2, 9);
  EXPECT_LE(difference(logits_of(*blocks, ids), logits_of(*single, ids)), kRounding);
}

TEST(LayerDrop, WithProbabilityZeroIsPrenorm) {
  const auto model = scattered_model(small_spec("layerdrop", {{"p", 0.0}, {"rescale", true}}));
  const PassRecord expected = prenorm_pass(), actual = record_pass(*model, training());
  EXPECT_TRUE(at::equal(actual.logits, expected.logits));
  expect_equal(actual.gradients, expected.gradients);
}

TEST(Gated, WithOpenGatesIsPrenorm) {
  for (const bool per_channel : {false, true}) {
    const auto model = scattered_model(small_spec("gated", {{"per_channel", per_channel}}));
    set_values(*model, "_gate.fc2.weight", 0.0);
    set_values(*model, "_gate.fc2.bias", 60.0);  // sigmoid(60) is 1 in float64
    const PassRecord expected = prenorm_pass(), actual = record_pass(*model, training());
    EXPECT_LE(difference(actual.logits, expected.logits), kRounding);
    expect_shared_equal(actual.gradients, expected.gradients);
  }
}

TEST(Gated, IsPrenormUntilTheFreezeEnds) {
  const auto model = scattered_model(small_spec("gated", {{"freeze", 0.1}}));
  const PassRecord expected = prenorm_pass();
  const auto at_step = [&](int64_t step) { return record_pass(*model, {true, 5, {step, 100}}); };
  const PassRecord frozen = at_step(9);
  EXPECT_TRUE(at::equal(frozen.logits, expected.logits));
  expect_shared_equal(frozen.gradients, expected.gradients);
  EXPECT_GT(difference(at_step(10).logits, expected.logits), 1e-3);

  // Evaluation is frozen as well, and a checkpoint made before the end stays so.
  ForwardOptions evaluation;
  evaluation.progress = {9, 100};
  const at::Tensor ids = random_tokens(2, 9);
  EXPECT_TRUE(at::equal(model->forward(ids, evaluation).logits, expected.logits));
  EXPECT_GT(difference(logits_of(*model, ids), expected.logits), 1e-3);
  const auto loaded = scattered_model(small_spec("gated", {{"frozen", true}}));
  EXPECT_TRUE(at::equal(logits_of(*loaded, ids), expected.logits));
}

// Everything random except the routers, and no epsilon in any norm.
std::unique_ptr<Decoder> even_routers(const std::string& scheme, Options options, int64_t layers) {
  DecoderSpec spec = small_spec(scheme, std::move(options), layers);
  spec.model.rms_norm_eps = 0.0;
  auto model = fresh_model(spec);
  scatter(*model, {"_res_proj", "_res_bias"});
  return model;
}

TEST(EvenRouter, MakesBlockAndFullAttnResComputePrenormsFunction) {
  const at::Tensor ids = random_tokens(2, 9);
  const at::Tensor expected = logits_of(*even_routers("prenorm", {}, 6), ids);
  const auto apart = [&](const std::string& scheme, const Options& options) {
    return difference(logits_of(*even_routers(scheme, options, 6), ids), expected);
  };
  EXPECT_LE(apart("full_attnres", {}), kRounding);
  for (const int64_t blocks : {1, 2, 3, 4, 6, 12}) {
    EXPECT_LE(apart("block_attnres", {{"blocks", blocks}}), kRounding) << blocks;
  }
}

TEST(EvenRouter, BringsWavAndHaaresToPrenormAsBetaFalls) {
  const at::Tensor ids = random_tokens(2, 9);
  const at::Tensor expected = logits_of(*even_routers("prenorm", {}, 6), ids);
  for (const char* scheme : {"haares", "wav"}) {
    const auto apart = [&](double beta) {
      const Options options = {{"blocks", int64_t{3}}, {"beta", beta}};
      return difference(logits_of(*even_routers(scheme, options, 6), ids), expected);
    };
    EXPECT_LE(apart(-60.0), kRounding) << scheme;  // e^-60 = 1e-26
    // On the way, as far away as e^beta predicts.
    EXPECT_GT(apart(-4.0), 1e-3) << scheme;
    EXPECT_NEAR(apart(-12.0) / apart(-10.0), std::exp(-2.0), 1e-3) << scheme;
  }
}

}  // namespace
}  // namespace wavroute
