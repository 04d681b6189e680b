// Writes everything that one pass of a small model computes, for a comparison with another
// implementation: wavroute_dump --out FILE.safetensors --json SPEC. No part of the product.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/philox.h"
#include "model/model_folder.h"
#include "model/training_pass.h"
#include "residual/options_json.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Json = nlohmann::json;

DecoderSpec read_spec(const Json& json) {
  DecoderSpec spec;
  spec.model.layers = json.at("layers");
  spec.model.width = json.at("width");
  spec.model.heads = json.at("heads");
  spec.model.kv_heads = json.at("kv_heads");
  spec.model.hidden = json.at("hidden");
  spec.model.context = json.at("context");
  spec.model.tie_embeddings = json.at("tie_embeddings");
  spec.vocab_size = json.at("vocab");
  std::tie(spec.scheme, spec.options) = residual_from_json(json.at("residual"), "--json");
  return spec;
}

// Values at which every term of the formula has an effect: no zero query, no unit gain. Biases and
// scales stay near enough to zero for every source and gate to matter.
void scatter_parameters(Decoder& model, uint64_t seed) {
  for (Parameter& parameter : model.parameters().parameters()) {
    const at::NoGradGuard no_grad;
    for (const ParameterSlice& slice : parameter.slices) {
      const Philox random(seed, "dump", slice.name);
      at::Tensor rows = parameter.rows(slice, parameter.value);
      at::Tensor values = at::empty(rows.sizes(), at::kDouble);
      for (int64_t i = 0; i < values.numel(); ++i) {
        values.mutable_data_ptr<double>()[i] = std::clamp(slice.init.center(i), -1.0, 1.0) +
                                               0.3 * random.normal(static_cast<uint64_t>(i));
      }
      rows.copy_(values);
    }
  }
  model.parameters().refresh_compute();
}

at::Tensor random_tokens(uint64_t seed, const char* name, int64_t batch, int64_t length,
                         int64_t vocab) {
  const Philox random(seed, "dump", name);
  at::Tensor ids = at::empty({batch, length}, at::kLong);
  for (int64_t i = 0; i < ids.numel(); ++i) {
    ids.mutable_data_ptr<int64_t>()[i] =
        static_cast<int64_t>(random.uniform(static_cast<uint64_t>(i)) * static_cast<double>(vocab));
  }
  return ids;
}

class DepthTap final : public Taps {
 public:
  void on_weights(const std::optional<Site>&, std::span<const SourceLabel>,
                  const at::Tensor&) override {}
  void on_gate(const Site&, const at::Tensor&) override {}
  void on_depth(const at::Tensor& value) override { depth = value.to(at::kLong); }

  at::Tensor depth;
};

at::Tensor decoded_logits(const Decoder& model, const at::Tensor& ids, ForwardOptions options) {
  InferenceState state = model.inference_state(ids.size(0), ids.size(1), options.program);
  options.state = &state;
  std::vector<at::Tensor> steps;
  for (int64_t t = 0; t < ids.size(1); ++t) {
    steps.push_back(model.forward(ids.narrow(1, t, 1), options).logits);
  }
  return at::cat(steps, 1);
}

void dump(const Json& json, const std::string& out) {
  const uint64_t seed = json.at("seed");
  Decoder model(read_spec(json),
                find_choice<Precision>(json.at("precision").get<std::string>()).value(), at::kCPU,
                seed);
  scatter_parameters(model, seed);
  const ModelConfig& m = model.spec().model;
  const int64_t batch = json.at("batch"), vocab = model.spec().vocab_size;
  const at::Tensor ids = random_tokens(seed, "ids", batch, m.context, vocab);
  const at::Tensor targets = random_tokens(seed, "targets", batch, m.context, vocab);

  PassOptions options;
  options.pass = {json.at("training"), seed, {json.at("step"), json.at("steps")}};
  options.recompute = find_choice<Recompute>(json.at("recompute").get<std::string>()).value();
  options.loss_weight = 1.0 / static_cast<double>(ids.numel());
  std::optional<LayerProgram> program;
  if (json.contains("program")) {
    program = LayerProgram::parse(json.at("program"), m.layers);
    model.check_program(*program);
    options.program = &*program;
  }
  at::Tensor logits;
  options.logits = &logits;
  const PassResult result = training_pass(model, ids, targets, options);

  ForwardOptions forward{options.pass.progress, options.program, nullptr, nullptr, false};
  DepthTap tap;
  forward.taps = &tap;
  InferenceState state = model.inference_state(batch, m.context, options.program);
  forward.state = &state;
  const at::Tensor prefill = model.forward(ids, forward).logits;
  forward.taps = nullptr;

  TensorFile file;
  file.add(model.parameters(), value_buffers(model.parameters()), "param.");
  file.add(model.parameters(), grad_buffers(model.parameters()), "grad.");
  file.add("ids", ids);
  file.add("targets", targets);
  file.add("logits", logits);
  file.add("inference_logits", prefill);
  file.add("decode_logits", decoded_logits(model, ids, forward));
  file.add("loss", at::tensor({result.loss_sum * options.loss_weight}, at::kDouble));
  file.add("aux", at::tensor({result.auxiliary}, at::kDouble));
  file.add(
      "kept_layers",
      at::tensor(program ? program->layers() : executed_layers(model, options.pass), at::kLong));
  if (tap.depth.defined()) file.add("act.depth", tap.depth);
  file.write(out, {{"config", model_config(model, options.pass.progress).dump()}});
}

}  // namespace
}  // namespace wavroute

int main(int argc, char** argv) {
  CLI::App app("Dumps a pass of a small model");
  std::string out, json;
  app.add_option("--out", out)->required();
  app.add_option("--json", json)->required();
  CLI11_PARSE(app, argc, argv);
  try {
    wavroute::dump(nlohmann::json::parse(json), out);
    return 0;
  } catch (const wavroute::Error& error) {
    fmt::print(stderr, "wavroute_dump: {}\nhint: {}\n", error.what(), error.hint());
    return error.exit_code();
  }
}
