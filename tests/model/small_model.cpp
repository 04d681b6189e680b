#include "tests/model/small_model.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/philox.h"

namespace wavroute::testing {
namespace {

constexpr int64_t kVocabulary = 17;

using Strings = std::vector<std::string>;
using Integers = std::vector<int64_t>;

at::Tensor copied(const at::Tensor& tensor) {
  return tensor.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
}

template <typename Visit>
void for_each_tensor(const Decoder& model, Visit&& visit) {
  for (const Parameter& parameter : model.parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) visit(parameter, slice);
  }
}

}  // namespace

std::vector<SchemeCase> scheme_cases() {
  std::vector<SchemeCase> cases;
  for (const SchemeInfo& scheme : residual_schemes())
    cases.push_back({scheme.name, scheme.name, {}});
  const std::vector<SchemeCase> settings = {
      {"rezero_without_norms", "rezero", {{"norm", std::string("none")}}},
      {"block_layerscale_of_three", "block_layerscale", {{"blocks", int64_t{4}}}, 6},
      {"layerdrop_rescaled",
       "layerdrop",
       {{"p", 0.5}, {"schedule", std::string("linear")}, {"rescale", true}},
       6},
      {"gated_per_channel", "gated", {{"per_channel", true}, {"windows", Integers{1, 3}}}},
      {"act_shared", "act", {{"shared", true}, {"epsilon", 0.2}, {"tau", 0.5}}},
      {"denseformer_dilated", "denseformer", {{"dilation", int64_t{2}}, {"period", int64_t{3}}}, 6},
      {"mhc_lite_of_two", "mhc_lite", {{"streams", int64_t{2}}}},
      {"block_attnres_of_three", "block_attnres", {{"blocks", int64_t{4}}}, 6},
      {"haares_one_block", "haares", {{"blocks", int64_t{1}}}},
      {"wav_short_last_block", "wav", {{"blocks", int64_t{3}}}, 5},
      {"wav_of_six", "wav", {{"blocks", int64_t{2}}}, 6},
      {"wav_finished_details", "wav", {{"blocks", int64_t{2}}, {"partial_details", false}}},
      {"wav_phase", "wav", {{"blocks", int64_t{2}}, {"details", Strings{"phase"}}}},
  };
  cases.insert(cases.end(), settings.begin(), settings.end());
  return cases;
}

DecoderSpec small_spec(const std::string& scheme, Options options, int64_t layers) {
  DecoderSpec spec;
  spec.model = {
      .layers = layers, .width = 16, .heads = 2, .kv_heads = 1, .hidden = 24, .context = 9};
  spec.vocab_size = kVocabulary;
  spec.scheme = scheme;
  spec.options = std::move(options);
  return spec;
}

DecoderSpec small_spec(const SchemeCase& scheme_case) {
  return small_spec(scheme_case.scheme, scheme_case.options, scheme_case.layers);
}

std::unique_ptr<Decoder> fresh_model(const DecoderSpec& spec, Precision precision, uint64_t seed,
                                     at::Device device) {
  at::set_num_threads(1);  // work this small is slower on more threads
  return std::make_unique<Decoder>(spec, precision, device, seed);
}

std::unique_ptr<Decoder> scattered_model(const DecoderSpec& spec, Precision precision,
                                         at::Device device) {
  auto model = fresh_model(spec, precision, 1, device);
  scatter(*model);
  return model;
}

void scatter(Decoder& model, const std::vector<std::string>& except, uint64_t draw) {
  const at::NoGradGuard no_grad;
  for_each_tensor(model, [&](const Parameter& parameter, const ParameterSlice& slice) {
    const auto holds = [&](const std::string& part) {
      return slice.name.find(part) != std::string::npos;
    };
    if (std::ranges::any_of(except, holds)) return;
    const Philox random(draw, "scatter", slice.name);
    at::Tensor rows = parameter.rows(slice, parameter.value);
    at::Tensor values = at::empty(rows.sizes(), at::kDouble);
    // Biases and scales stay near enough to zero for every source and gate to matter.
    for (int64_t i = 0; i < values.numel(); ++i) {
      values.mutable_data_ptr<double>()[i] = std::clamp(slice.init.center(i), -1.0, 1.0) +
                                             0.3 * random.normal(static_cast<uint64_t>(i));
    }
    rows.copy_(values);
  });
  model.parameters().refresh_compute();
}

void set_values(Decoder& model, std::string_view suffix, double value) {
  const at::NoGradGuard no_grad;
  int found = 0;
  for_each_tensor(model, [&](const Parameter& parameter, const ParameterSlice& slice) {
    if (!slice.name.ends_with(suffix)) return;
    parameter.rows(slice, parameter.value).fill_(value);
    ++found;
  });
  model.parameters().refresh_compute();
  EXPECT_GT(found, 0) << "no parameter " << suffix;
}

at::Tensor logits_in_pieces(const Decoder& model, const at::Tensor& ids,
                            const std::vector<int64_t>& pieces) {
  InferenceState state = model.inference_state(ids.size(0), ids.size(1));
  ForwardOptions options;
  options.state = &state;
  std::vector<at::Tensor> logits;
  int64_t begin = 0;
  for (const int64_t length : pieces) {
    const at::Tensor next = ids.narrow(1, begin, length).to(model.device());
    logits.push_back(model.forward(next, options).logits.cpu());
    begin += length;
  }
  return at::cat(logits, 1);
}

std::vector<int64_t> prompt_and_tokens(int64_t prompt, int64_t length) {
  std::vector<int64_t> pieces(static_cast<size_t>(length - prompt + 1), 1);
  pieces.front() = prompt;
  return pieces;
}

NamedTensors values_of(const Decoder& model) {
  NamedTensors result;
  for_each_tensor(model, [&](const Parameter& parameter, const ParameterSlice& slice) {
    result[slice.name] = copied(parameter.rows(slice, parameter.value));
  });
  return result;
}

NamedTensors gradients_of(const Decoder& model) {
  NamedTensors result;
  for_each_tensor(model, [&](const Parameter& parameter, const ParameterSlice& slice) {
    result[slice.name] = copied(parameter.rows(slice, parameter.value.grad()));
  });
  return result;
}

at::Tensor all_of(const NamedTensors& tensors) {
  std::vector<at::Tensor> flat;
  for (const auto& [name, tensor] : tensors) flat.push_back(tensor.flatten().to(at::kDouble));
  return at::cat(flat);
}

at::Tensor random_tokens(int64_t rows, int64_t length, std::string_view name) {
  const Philox random(1, "tokens", name);
  at::Tensor ids = at::empty({rows, length}, at::kLong);
  for (int64_t i = 0; i < ids.numel(); ++i) {
    ids.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(
        random.uniform(static_cast<uint64_t>(i)) * static_cast<double>(kVocabulary));
  }
  return ids;
}

Pass training() { return {true, 5, {60, 100}}; }

PassRecord record_pass(Decoder& model, const Pass& pass, Recompute recompute) {
  const int64_t context = model.spec().model.context;
  PassRecord record;
  model.parameters().zero_grad();
  PassOptions options;
  options.pass = pass;
  options.recompute = recompute;
  options.loss_weight = 1.0 / static_cast<double>(2 * context);
  options.logits = &record.logits;
  record.sums = training_pass(model, random_tokens(2, context).to(model.device()),
                              random_tokens(2, context, "targets").to(model.device()), options);
  record.logits = record.logits.cpu();
  record.gradients = gradients_of(model);
  return record;
}

at::Tensor logits_of(const Decoder& model, const at::Tensor& ids, const LayerProgram* program) {
  ForwardOptions options;
  options.program = program;
  return model.forward(ids.to(model.device()), options).logits.cpu();
}

at::Tensor logits_after(const Decoder& model, const at::Tensor& read_out) {
  const PreNorm norm = model.final_norm();
  return model.head(at::rms_norm(read_out, norm.gain->value.sizes(), norm.gain->value, norm.eps));
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  const double largest = (a - b).abs().max().item<double>();
  return std::isnan(largest) ? std::numeric_limits<double>::infinity() : largest;
}

double error_of(const at::Tensor& actual, const at::Tensor& exact) {
  const double error = (actual.to(at::kDouble) - exact).norm().item<double>();
  const double norm = exact.norm().item<double>();
  return std::isnan(error) ? std::numeric_limits<double>::infinity()
                           : error / std::max(norm, 1e-12);
}

void expect_equal(const NamedTensors& actual, const NamedTensors& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    if (tolerance == 0.0) {
      EXPECT_TRUE(at::equal(actual.at(name), tensor)) << name;
    } else {
      EXPECT_LE(difference(actual.at(name), tensor), tolerance) << name;
    }
  }
}

}  // namespace wavroute::testing
