// Properties of every scheme along a sequence, and between the ways to run one.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "base/philox.h"
#include "model/sublayer.h"
#include "tests/model/small_model.h"
#include "tests/residual/halting.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;

// float64. Not bit for bit: a product of another number of rows may sum in another order.
constexpr double kRounding = 1e-12;
constexpr double kHaltingMargin = 1e-4;

class EveryScheme : public ::testing::TestWithParam<SchemeCase> {};

INSTANTIATE_TEST_SUITE_P(Registry, EveryScheme, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& info) { return info.param.label; });

// [B,T] of positions that see no token which halts within rounding of its threshold.
at::Tensor comparable(const Decoder& model, const at::Tensor& ids) {
  if (!values_of(model).contains("model.layers.0.halt.weight")) {
    return at::ones(ids.sizes(), at::kBool);
  }
  return halting_of(model, ids).margin.gt(kHaltingMargin).to(at::kLong).cumprod(1).to(at::kBool);
}

TEST_P(EveryScheme, LetsNoTokenSeeALaterOne) {
  const auto model = scattered_model(small_spec(GetParam()));
  const at::Tensor ids = random_tokens(2, 9);
  const at::Tensor targets = random_tokens(2, 9, "targets");
  const auto both = [&](const at::Tensor& input) {
    at::Tensor trained;
    PassOptions options;
    options.pass = training();
    options.logits = &trained;
    static_cast<void>(training_pass(*model, input, targets, options));
    return std::vector<at::Tensor>{logits_of(*model, input), trained};
  };
  const std::vector<at::Tensor> before = both(ids);
  for (const int64_t t : {0, 3, 7}) {
    at::Tensor changed = ids.clone();
    changed.narrow(1, t + 1, 8 - t).add_(1).remainder_(17);
    const std::vector<at::Tensor> after = both(changed);
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_LE(difference(after[i].narrow(1, 0, t + 1), before[i].narrow(1, 0, t + 1)), kRounding);
      EXPECT_GT(difference(after[i].select(1, t + 1), before[i].select(1, t + 1)), 1e-3);
    }
  }
}

TEST_P(EveryScheme, DecodesWhatItPrefills) {
  const auto model = scattered_model(small_spec(GetParam()));
  const at::Tensor ids = random_tokens(4, 9);
  const at::Tensor whole = logits_of(*model, ids);
  const at::Tensor compared = comparable(*model, ids);
  ASSERT_GE(compared.sum().item<int64_t>(), 32);  // of 36
  const std::vector<std::vector<int64_t>> ways = {
      {9}, {5, 4}, {1, 8}, {4, 1, 1, 3}, std::vector<int64_t>(9, 1)};
  for (const std::vector<int64_t>& pieces : ways) {
    const at::Tensor logits = logits_in_pieces(*model, ids, pieces);
    EXPECT_LE(difference(logits.index({compared}), whole.index({compared})), kRounding)
        << pieces.size() << " pieces";
  }
}

TEST_P(EveryScheme, RecomputesBitForBit) {
  for (const Precision precision : {Precision::kFp64, Precision::kBf16}) {
    const auto model = scattered_model(small_spec(GetParam()), precision);
    const PassRecord kept = record_pass(*model, training());
    EXPECT_GT(kept.gradients.at("model.embed_tokens.weight").abs().max().item<double>(), 0.0);
    for (const Recompute recompute : {Recompute::kBlock, Recompute::kLayer}) {
      const PassRecord again = record_pass(*model, training(), recompute);
      EXPECT_EQ(again.sums.loss_sum, kept.sums.loss_sum);
      EXPECT_EQ(again.sums.auxiliary, kept.sums.auxiliary);
      EXPECT_TRUE(at::equal(again.logits, kept.logits));
      expect_equal(again.gradients, kept.gradients);
    }
  }
}

// On stock operators and on our kernels: a sublayer's backward multiplies it by weights of that
// type.
TEST_P(EveryScheme, GivesTheGradientOfAnUpdateInTheTypeOfTheUpdate) {
  const at::NoGradGuard no_grad;
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const auto model = scattered_model(small_spec(GetParam()), precision);
    const at::Tensor e = embedded(*model, random_tokens(2, 9));
    for (const KernelChoice kernels : {KernelChoice::kComposed, KernelChoice::kFused}) {
      model->use_kernels(kernels);
      StreamOptions options = on_backend(model->backend());
      options.pass = training();
      options.record = true;
      const auto stream = model->residual().open(options);
      std::vector<Site> sites;
      for (const int64_t layer : executed_layers(*model, options.pass)) {
        sites.push_back(Site::at(2 * layer));
        sites.push_back(Site::at(2 * layer + 1));
      }
      stream->begin(e);
      for (const Site& site : sites) {
        stream->write(site, stream->read_normed(site, model->sublayer(site).norm()) * 0.5);
      }
      const at::Tensor x = stream->read_out_normed(model->final_norm());
      stream->read_out_normed_backward(model->final_norm(), x, 1.0);
      for (size_t i = sites.size(); i-- > 0;) {
        const at::Tensor du = stream->write_backward(sites[i]);
        EXPECT_EQ(du.scalar_type(), compute_type(precision)) << sites[i].index();
        stream->read_normed_backward(sites[i], model->sublayer(sites[i]).norm(), du);
      }
    }
  }
}

TEST_P(EveryScheme, AddsToTheGradientsThatAreThere) {
  const auto model = scattered_model(small_spec(GetParam()));
  const PassRecord once = record_pass(*model, training());
  const at::Tensor ids = random_tokens(2, 9), targets = random_tokens(2, 9, "targets");
  PassOptions options;
  options.pass = training();
  options.loss_weight = 1.0 / 18.0;
  static_cast<void>(training_pass(*model, ids, targets, options));
  NamedTensors doubled = once.gradients;
  for (auto& [name, gradient] : doubled) gradient = gradient * 2.0;
  expect_equal(gradients_of(*model), doubled, kRounding);
}

// A random direction for all parameters whose names hold one of `parts` (empty: all).
NamedTensors random_direction(const NamedTensors& values, const std::vector<std::string>& parts) {
  NamedTensors direction;
  for (const auto& [name, value] : values) {
    const auto holds = [&, &name = name](const std::string& part) {
      return name.find(part) != std::string::npos;
    };
    if (!parts.empty() && std::ranges::none_of(parts, holds)) continue;
    const Philox random(2, "direction", name);
    at::Tensor numbers = at::empty(value.sizes(), at::kDouble);
    for (int64_t i = 0; i < numbers.numel(); ++i) {
      numbers.mutable_data_ptr<double>()[i] = random.normal(static_cast<uint64_t>(i));
    }
    direction[name] = numbers;
  }
  return direction;
}

void move(Decoder& model, const NamedTensors& direction, double step) {
  const at::NoGradGuard no_grad;
  for (Parameter& parameter : model.parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      if (!direction.contains(slice.name)) continue;
      parameter.rows(slice, parameter.value).add_(direction.at(slice.name), step);
    }
  }
}

TEST_P(EveryScheme, HasTheGradientOfItsLoss) {
  const auto model = scattered_model(small_spec(GetParam()));
  // The ratios that match details are constants of the gradient but not of the loss: there, only
  // what comes after the last of them can be moved.
  const Options& options = model->spec().options;
  const auto* details = options.contains("details")
                            ? std::get_if<std::vector<std::string>>(&options.at("details"))
                            : nullptr;
  std::vector<std::string> parts;
  if (details != nullptr && !details->empty()) {
    parts = {"model.norm.weight", "lm_head.weight", "model.output_attn_res"};
  }
  const PassRecord record = record_pass(*model, training());
  const NamedTensors direction = random_direction(record.gradients, parts);
  double slope = 0.0;
  for (const auto& [name, along] : direction) {
    slope += (record.gradients.at(name) * along).sum().item<double>();
  }
  const auto loss = [&] {
    const PassRecord moved = record_pass(*model, training());
    return moved.sums.loss_sum / 18.0 + moved.sums.auxiliary;
  };
  constexpr double kStep = 1e-6;
  move(*model, direction, kStep);
  const double ahead = loss();
  move(*model, direction, -2.0 * kStep);
  EXPECT_NEAR((ahead - loss()) / (2.0 * kStep), slope, 1e-6 * std::max(1.0, std::abs(slope)));
  EXPECT_GT(std::abs(slope), 1e-3);
}

TEST(Gated, ReusesThePromptsMeanGateWhereAskedTo) {
  const auto model = scattered_model(small_spec("gated", {{"gate_reuse", std::string("prompt")}}));
  const auto plain = scattered_model(small_spec("gated"));
  const at::Tensor ids = random_tokens(2, 9);
  InferenceState state = model->inference_state(2, 9);
  RecordingTaps prompt, token;
  ForwardOptions options;
  options.state = &state;
  options.taps = &prompt;
  const at::Tensor logits = model->forward(ids.narrow(1, 0, 7), options).logits;
  EXPECT_LE(difference(logits, logits_of(*plain, ids.narrow(1, 0, 7))), kRounding);
  options.taps = &token;
  for (const int64_t t : {7, 8}) {
    token.gates.clear();
    static_cast<void>(model->forward(ids.narrow(1, t, 1), options));
    ASSERT_EQ(token.gates.size(), 8U);
    for (size_t i = 0; i < token.gates.size(); ++i) {
      EXPECT_LE(difference(token.gates[i], prompt.gates[i].mean(1, true)), kRounding);
    }
  }
}

TEST(LayerDrop, DrawsByStepAndLayerAlone) {
  const auto model = fresh_model(small_spec("layerdrop", {{"p", 0.5}}, 24));
  const auto layers_at = [&](uint64_t seed, int64_t step) {
    return executed_layers(*model, {true, seed, {step, 100}});
  };
  EXPECT_EQ(layers_at(1, 3), layers_at(1, 3));
  EXPECT_NE(layers_at(1, 3), layers_at(1, 4));
  EXPECT_NE(layers_at(1, 3), layers_at(2, 3));
  std::vector<int64_t> all(24);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(executed_layers(*model, {false, 1, {3, 100}}), all);
}

TEST(LayerDrop, LeavesOutEachLayerAsOftenAsItsProbabilitySays) {
  constexpr int64_t kSteps = 4000;
  for (const char* schedule : {"uniform", "linear"}) {
    const auto model =
        fresh_model(small_spec("layerdrop", {{"p", 0.4}, {"schedule", std::string(schedule)}}, 4));
    std::vector<int64_t> runs(4);
    for (int64_t step = 0; step < kSteps; ++step) {
      for (const int64_t layer : executed_layers(*model, {true, 1, {step, kSteps}})) {
        ++runs[static_cast<size_t>(layer)];
      }
    }
    for (int64_t layer = 0; layer < 4; ++layer) {
      const double p =
          schedule == std::string("linear") ? 0.4 * static_cast<double>(layer + 1) / 4.0 : 0.4;
      const double left_out = 1.0 - static_cast<double>(runs[static_cast<size_t>(layer)]) / kSteps;
      EXPECT_NEAR(left_out, p, 4.0 * std::sqrt(p * (1.0 - p) / kSteps)) << schedule << layer;
    }
  }
}

}  // namespace
}  // namespace wavroute
