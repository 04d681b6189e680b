#include "model/plain_start.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/philox.h"
#include "config/llama_config.h"
#include "io/checkpoint_names.h"
#include "io/mapped_pages.h"
#include "model/model_folder.h"
#include "model/sublayer.h"
#include "ops/backend.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

}  // namespace

DecoderSpec spec_from_plain(const DecoderSpec& plain, const std::string& scheme, Options& options) {
  // The scheme's parameters alone: a start says what it needs without the model's weights.
  const auto residual = find_scheme(scheme).create(options, {plain.model.layers, plain.model.width},
                                                   plain.model.rms_norm_eps);
  ParameterTable table;
  residual->declare(table);
  table.allocate(at::kFloat, at::kFloat, at::kCPU, 0);
  const PlainStart start = residual->start_from_plain();
  for (const auto& [key, value] : start.options) options.emplace(key, value);
  DecoderSpec spec = plain;
  spec.scheme = scheme;
  spec.options = options;
  if (start.stream_scale != 1.0) spec.model.tie_embeddings = false;
  return spec;
}

void start_from_plain(Decoder& model, const std::filesystem::path& folder, double scale) {
  const at::NoGradGuard no_grad;
  const SafetensorsFile file(folder / kModelFile);
  PlainStart start = model.residual().start_from_plain();
  start.stream_scale = std::min(start.stream_scale, scale);
  size_t used = 0;
  for (Parameter& parameter : model.parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      const bool is_untied = slice.name == kHead && file.find(kHead) == nullptr;
      const std::string name = is_untied ? kEmbedding : slice.name;
      if (file.find(name) == nullptr) continue;  // the scheme's own
      at::Tensor target = parameter.rows(slice, parameter.value).detach();
      const TensorInfo& info = file.require(name, Dtype::kF32, target.sizes().vec());
      at::Tensor values = at::empty(target.sizes(), at::kFloat);
      std::ranges::copy(info.bytes, static_cast<std::byte*>(values.mutable_data_ptr()));
      release_pages(info.bytes);
      if (slice.name == kEmbedding && &parameter != &model.head_weight()) {
        values.mul_(start.stream_scale);
      }
      if (updating_sublayer(slice.name)) values.mul_(start.stream_scale * start.update_scale);
      target.copy_(values);
      if (!is_untied) ++used;
    }
  }
  if (used != file.names().size()) {
    throw expected(fmt::format("a plain model of the sizes of this {} model", model.spec().scheme),
                   fmt::format("{} tensors that it doesn't have", file.names().size() - used),
                   fmt::format("in {}", file.path().string()),
                   "a scheme that shares its layers has no place for those of a plain model");
  }
  model.parameters().refresh_compute();
}

namespace {

// A few fixed tokens [1, T].
at::Tensor probe_tokens(const DecoderSpec& spec) {
  constexpr int64_t kTokens = 64;
  const Philox random(1, "probe");
  const int64_t length = std::min(kTokens, spec.model.context);
  at::Tensor ids = at::empty({1, length}, at::kLong);
  for (int64_t i = 0; i < length; ++i) {
    ids.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(
        random.uniform(static_cast<uint64_t>(i)) * static_cast<double>(spec.vocab_size));
  }
  return ids;
}

at::Tensor amplitude(const at::Tensor& h, double eps) {
  const at::Tensor ms = h.to(at::kDouble).square().mean(-1).flatten();
  return (ms / (ms + eps)).sqrt();
}

}  // namespace

at::Tensor probe_logits(const Decoder& model) {
  return model.forward(probe_tokens(model.spec()).to(model.device()), {}).logits[0].cpu();
}

std::vector<at::Tensor> probe_norms(const Decoder& model) {
  const at::NoGradGuard no_grad;
  ops::Backend& backend = model.backend_for({.taps = true});
  backend.begin_pass();
  StreamOptions options;
  options.backend = &backend;
  const std::unique_ptr<Stream> stream = model.residual().open(options);
  const at::Tensor ids = probe_tokens(model.spec()).to(model.device());
  stream->begin(backend.embed(model.embedding().value, ids));
  std::vector<at::Tensor> norms;
  for (int64_t layer = 0; layer < model.spec().model.layers; ++layer) {
    for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
      const Site site{layer, kind, layer};
      const Sublayer& f = model.sublayer(site);
      const at::Tensor h = stream->read(site);
      norms.push_back(amplitude(h, f.norm().eps));
      const at::Tensor inverse = (h.square().mean(-1, true) + f.norm().eps).rsqrt();
      stream->write(site, f.run((h * inverse * f.norm().gain->value).to(f.norm().type), backend,
                                nullptr, {}));
    }
  }
  norms.push_back(amplitude(stream->read_out(), model.final_norm().eps));
  return norms;
}

std::vector<double> norm_factors(const Decoder& model, const std::vector<at::Tensor>& plain) {
  const std::vector<at::Tensor> own = probe_norms(model);
  std::vector<double> factors;
  for (size_t i = 0; i < own.size(); ++i) {
    factors.push_back((plain[i] / own[i]).mean().item<double>());
  }
  return factors;
}

void scale_norms(Decoder& model, const std::vector<double>& factors) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < factors.size(); ++i) {
    const auto layer = static_cast<int64_t>(i / 2);
    const bool is_final = i + 1 == factors.size();
    const Site site{layer, i % 2 == 0 ? SublayerKind::kAttention : SublayerKind::kMlp, layer};
    Parameter* gain = is_final ? model.final_norm().gain : model.sublayer(site).norm().gain;
    gain->value.mul_(factors[i]);
  }
  model.parameters().refresh_compute();
}

}  // namespace wavroute
