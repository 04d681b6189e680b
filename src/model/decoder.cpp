#include "wavroute/decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "config/model_size.h"
#include "config/rope_scaling.h"
#include "model/recorded_tokens.h"
#include "model/sublayer.h"
#include "ops/backend.h"
#include "ops/ids.h"
#include "ops/q8.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr double kInitStddev = 0.02;

void check(const DecoderSpec& spec) {
  const auto fault = find_model_fault(spec.model, spec.vocab_size, kConfigurationKeys);
  if (!fault) return;
  throw expected(fault->expected, fault->given, {},
                 fault->hint.empty() ? "see the [model] table of the configuration" : fault->hint);
}

DecoderSpec resolved(DecoderSpec spec) {
  if (spec.model.kv_heads == 0) spec.model.kv_heads = spec.model.heads;
  if (spec.model.hidden == 0) spec.model.hidden = 4 * spec.model.width;
  spec.model.rope_scaling = resolved(spec.model.rope_scaling, spec.model.context);
  check(spec);
  // The projections that write to the stream start smaller by the root of their number [ours].
  if (!spec.model.output_init) {
    spec.model.output_init = kInitStddev / std::sqrt(2.0 * static_cast<double>(spec.model.layers));
  }
  return spec;
}

std::shared_ptr<ops::RopeRows> rope_rows(const ModelConfig& m, const at::TensorOptions& options) {
  at::Tensor frequency = ops::rope_frequencies(m.head_width(), m.rope_theta);
  scale_frequencies({frequency.mutable_data_ptr<double>(), static_cast<size_t>(frequency.numel())},
                    m.rope_theta, m.rope_scaling);
  return std::make_shared<ops::RopeRows>(std::move(frequency), attention_factor(m.rope_scaling),
                                         options);
}

}  // namespace

at::ScalarType storage_type(Precision precision) {
  return precision == Precision::kFp64 ? at::kDouble : at::kFloat;
}

at::ScalarType compute_type(Precision precision) {
  return precision == Precision::kBf16 ? at::kBFloat16 : storage_type(precision);
}

Decoder::Decoder(DecoderSpec spec, Precision precision, at::Device device, uint64_t seed)
    : Decoder(std::move(spec), precision, device) {
  allocate(seed);
}

void Decoder::allocate(std::optional<uint64_t> seed) {
  table_.allocate(storage_type(precision_), compute_type(precision_), device_, seed);
}

void Decoder::use_kernels(KernelChoice choice) {
  if (choice == KernelChoice::kFused && ours_ == nullptr) {
    const bool lacks_gpu = device_.is_cuda() && precision_ != Precision::kFp64;
    throw expected(
        "fp32 or bf16 on the CPU, or on a GPU that this build has kernels for, for train.kernels = "
        "\"fused\"",
        fmt::format("{} on {}", to_string(precision_), device_.str()), {},
        lacks_gpu ? ops::why_no_cuda_backend()
                  : std::string("train.kernels = \"auto\" takes stock operators there"));
  }
  const bool composed = ours_ == nullptr || choice == KernelChoice::kComposed;
  backend_ = composed ? composed_.get() : ours_.get();
}

void Decoder::use_backend(std::unique_ptr<ops::Backend> backend) {
  ours_ = std::move(backend);
  backend_ = ours_.get();
}

ops::Backend& Decoder::backend_for(const ops::PassNeeds& needs) const {
  return backend_->serves(needs) ? *backend_ : *composed_;
}

Decoder::Decoder(DecoderSpec spec, Precision precision, at::Device device)
    : spec_(resolved(std::move(spec))),
      precision_(precision),
      device_(device),
      composed_(ops::make_composed_backend(device)) {
  // Our kernels are in float and bfloat16.
  if (precision != Precision::kFp64) {
    ours_ = device.is_cpu() ? ops::make_cpu_backend() : ops::make_cuda_backend(device);
  }
  use_kernels(KernelChoice::kAuto);
  residual_ =
      find_scheme(spec_.scheme)
          .create(spec_.options, {spec_.model.layers, spec_.model.width}, spec_.model.rms_norm_eps);
  spec_.options = residual_->options({});
  declare_parameters();
  residual_->declare(table_);
}

Decoder::~Decoder() = default;

void Decoder::declare_parameters() {
  const ModelConfig& m = spec_.model;
  const int64_t d = m.width, head_width = m.head_width();
  const Init init{0.0, kInitStddev};
  const Init output_init{0.0, *m.output_init};
  const auto rope = rope_rows(m, at::TensorOptions(device_).dtype(storage_type(precision_)));

  embedding_ =
      &table_.declare("model.embed_tokens.weight", {spec_.vocab_size, d}, Decay::kYes, init);
  for (int64_t i = 0; i < m.layers; ++i) {
    if (residual_->stored_layer(i) != i) continue;
    const std::string layer = fmt::format("model.layers.{}.", i);
    const auto norm = [&](const char* name) -> PreNorm {
      Parameter* gain = nullptr;
      if (residual_->has_sublayer_norms()) {
        gain = &table_.declare(layer + name + ".weight", {d}, Decay::kNo, {1.0});
      }
      return {gain, m.rms_norm_eps, compute_type(precision_)};
    };
    const auto slice = [&](const char* name, int64_t rows) {
      return ParameterSlice{layer + name + ".weight", 0, rows, init};
    };
    const PreNorm attention_norm = norm("input_layernorm");
    Parameter& qkv = table_.declare_fused({slice("self_attn.q_proj", m.heads * head_width),
                                           slice("self_attn.k_proj", m.kv_heads * head_width),
                                           slice("self_attn.v_proj", m.kv_heads * head_width)},
                                          d, Decay::kYes);
    Parameter& out = table_.declare(layer + "self_attn.o_proj.weight", {d, m.heads * head_width},
                                    Decay::kYes, output_init);
    Attention::Weights attention = {&qkv, &out, nullptr, nullptr};
    if (m.attention_bias) {
      const auto bias = [&](const char* name, int64_t rows) {
        return ParameterSlice{layer + name + ".bias", 0, rows, {0.0}};
      };
      attention.qkv_bias =
          &table_.declare_fused_vector({bias("self_attn.q_proj", m.heads * head_width),
                                        bias("self_attn.k_proj", m.kv_heads * head_width),
                                        bias("self_attn.v_proj", m.kv_heads * head_width)});
      attention.out_bias = &table_.declare(layer + "self_attn.o_proj.bias", {d}, Decay::kNo, {0.0});
    }
    sublayers_.push_back(std::make_unique<Attention>(m, attention_norm, attention, rope));
    const PreNorm mlp_norm = norm("post_attention_layernorm");
    Parameter& gate_up = table_.declare_fused(
        {slice("mlp.gate_proj", m.hidden), slice("mlp.up_proj", m.hidden)}, d, Decay::kYes);
    Parameter& down =
        table_.declare(layer + "mlp.down_proj.weight", {d, m.hidden}, Decay::kYes, output_init);
    sublayers_.push_back(std::make_unique<Mlp>(mlp_norm, &gate_up, &down));
  }
  norm_ = &table_.declare("model.norm.weight", {d}, Decay::kNo, {1.0});
  head_ = m.tie_embeddings
              ? embedding_
              : &table_.declare("lm_head.weight", {spec_.vocab_size, d}, Decay::kYes, init);
}

const Sublayer& Decoder::sublayer(const Site& site) const {
  const int64_t stored =
      2 * residual_->stored_layer(site.layer) + (site.kind == SublayerKind::kMlp ? 1 : 0);
  return *sublayers_[static_cast<size_t>(stored)];
}

PreNorm Decoder::final_norm() const {
  return {norm_, spec_.model.rms_norm_eps, head_->compute.scalar_type()};
}

at::Tensor Decoder::head_of(const at::Tensor& x, ops::Backend& backend) const {
  const at::Tensor rows = x.flatten(0, 1);
  const at::Tensor logits =
      head_->quants.defined()
          ? backend.project_logits(rows, ops::Q8Matrix{head_->quants, head_->scales})
          : backend.project_logits(rows, head_->compute);
  return logits.view({x.size(0), x.size(1), logits.size(1)});
}

at::Tensor Decoder::head(const at::Tensor& x) const { return at::linear(x, head_->compute); }

void Decoder::check_program(const LayerProgram& program) const {
  if (!program.is_plain()) residual_->check_program();
}

InferenceState Decoder::inference_state(int64_t batch, int64_t capacity,
                                        const LayerProgram* program) const {
  const ModelConfig& m = spec_.model;
  const size_t visits =
      program != nullptr ? program->layers().size() : static_cast<size_t>(m.layers);
  InferenceState state;
  state.positions.assign(static_cast<size_t>(batch), 0);
  state.capacity = capacity;
  const auto options = at::TensorOptions().dtype(compute_type(precision_)).device(device_);
  for (size_t i = 0; i < visits; ++i) {
    const std::vector<int64_t> shape = {batch, m.kv_heads, capacity, m.head_width()};
    state.keys.push_back(at::empty(shape, options));
    state.values.push_back(at::empty(shape, options));
  }
  state.residual = residual_->decode_state();
  return state;
}

InferenceState InferenceState::sequence(int64_t b) const {
  InferenceState one;
  one.positions = {positions[static_cast<size_t>(b)]};
  one.capacity = capacity;
  for (const at::Tensor& of_visit : keys) one.keys.push_back(of_visit.narrow(0, b, 1));
  for (const at::Tensor& of_visit : values) one.values.push_back(of_visit.narrow(0, b, 1));
  return one;
}

void Decoder::quantise() {
  std::vector<Parameter*> matrices;
  for (const auto& layer : sublayers_) {
    for (Parameter* weight : layer->weights()) {
      if (weight->shape.size() == 2) matrices.push_back(weight);
    }
  }
  matrices.push_back(head_);
  for (const Parameter* matrix : matrices) {
    if (matrix->shape[1] % ops::kQ8Block == 0) continue;
    throw expected("matrices with rows of a multiple of 32 for q8_0",
                   fmt::format("{} numbers in {}", matrix->shape[1], matrix->slices[0].name), {},
                   "--precision bf16 takes any sizes");
  }
  // The largest number whose block has a scale in fp16.
  constexpr double kLargest = 127.0 * 65504.0;
  for (const Parameter* matrix : matrices) {
    if (matrix->value.abs().max().item<double>() <= kLargest) continue;  // false for NaN
    throw Failure(expectation("finite numbers for q8_0", "others or larger ones than fit",
                              fmt::format("in {}", matrix->slices[0].name)),
                  "the model holds values that are not finite or too large: use an earlier "
                  "checkpoint");
  }
  std::vector<at::Tensor> values;
  values.reserve(matrices.size());
  for (const Parameter* matrix : matrices) values.push_back(matrix->value);
  const std::vector<ops::Q8Matrix> blocks = ops::quantise(values);
  for (size_t i = 0; i < matrices.size(); ++i) {
    matrices[i]->quants = blocks[i].quants, matrices[i]->scales = blocks[i].scales;
  }
}

ForwardResult Decoder::forward(const at::Tensor& ids, const ForwardOptions& options) const {
  const at::NoGradGuard no_grad;
  if (options.state != nullptr) {
    const int64_t end = *std::ranges::max_element(options.state->positions) + ids.size(1);
    if (end > options.state->capacity) {
      throw Failure(
          expectation(fmt::format("at most {} tokens in a cache", options.state->capacity), end));
    }
  }
  const LayerProgram plain(spec_.model.layers);
  const LayerProgram& program = options.program != nullptr ? *options.program : plain;
  ops::Backend& backend = backend_for({.program = !program.is_plain(),
                                       .taps = options.taps != nullptr,
                                       .decoding = options.state != nullptr});
  if (options.state == nullptr || options.taps != nullptr || !options.state->records ||
      ids.size(1) != 1 || backend.steps() == nullptr) {
    return run(ids.to(device_), options, program, backend);
  }
  InferenceState& state = *options.state;
  const RecordedTokens::Kind kind = {ids.size(0), program.layers(), options.progress.step,
                                     options.progress.steps, &backend};
  if (state.tokens == nullptr || state.tokens->kind() != kind) {
    state.tokens = std::make_shared<RecordedTokens>(kind, *backend.steps(), device_);
  }
  ops::check_ids(ids.cpu(), spec_.vocab_size);
  return state.tokens->next(ids, state, [&, this](const at::Tensor& on_device) {
    return run(on_device, options, program, backend);
  });
}

ForwardResult Decoder::run(const at::Tensor& ids, const ForwardOptions& options,
                           const LayerProgram& program, ops::Backend& backend) const {
  backend.begin_pass();

  StreamOptions stream_options;
  stream_options.backend = &backend;
  stream_options.pass.progress = options.progress;
  stream_options.decode = options.state != nullptr ? options.state->residual.get() : nullptr;
  stream_options.taps = options.taps;
  stream_options.order = program.order();
  std::unique_ptr<Stream> stream;
  if (options.state != nullptr) stream = std::move(options.state->stream);
  if (stream == nullptr || !stream->can_begin_again(stream_options)) {
    stream = residual_->open(stream_options);
  }
  stream->begin(backend.embed(embedding_->value, ids));
  for (size_t visit = 0; visit < program.layers().size(); ++visit) {
    for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
      const Site site{program.layers()[visit], kind, static_cast<int64_t>(visit)};
      take_sublayer(*stream, site, sublayer(site), backend, options.state, nullptr);
    }
  }
  at::Tensor out = stream->read_out_normed(final_norm());
  if (options.last_only) out = out.narrow(1, out.size(1) - 1, 1);
  if (options.state != nullptr) {
    for (int64_t& position : options.state->positions) position += ids.size(1);
  }
  const at::Tensor logits = options.state == nullptr ? head(out) : head_of(out, backend);
  ForwardResult result = {logits.to(storage_type(precision_)), stream->auxiliary_loss(),
                          stream->mean_depth()};
  if (options.state != nullptr && stream->can_begin_again(stream_options)) {
    options.state->stream = std::move(stream);
  }
  return result;
}

}  // namespace wavroute
