#include "model/model_folder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/printable.h"
#include "config/rope_scaling.h"
#include "io/checkpoint_names.h"
#include "io/mapped_pages.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

Dtype to_dtype(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Dtype::kF32;
    case at::kDouble:
      return Dtype::kF64;
    case at::kBFloat16:
      return Dtype::kBF16;
    case at::kHalf:
      return Dtype::kF16;
    case at::kLong:
      return Dtype::kI64;
    default:
      throw Failure(expectation("a tensor type that a checkpoint holds", c10::toString(type)));
  }
}

// The type of a floating-point tensor in a file; UserError for any other.
at::ScalarType floating_type(const TensorInfo& info, const std::string& name,
                             const fs::path& path) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    if (to_dtype(type) == info.dtype) return type;
  }
  throw expected(fmt::format("tensor {} of a floating-point type", name), dtype_name(info.dtype),
                 "in " + path.string(), "save the model in fp32, fp16 or bf16");
}

// A floating-point tensor of a file, in fp64.
at::Tensor in_double(const TensorInfo& info, const std::string& name, const fs::path& path) {
  at::Tensor host = at::empty(info.shape, floating_type(info, name, path));
  std::memcpy(host.mutable_data_ptr(), info.bytes.data(), info.bytes.size());
  return host.to(at::kDouble);
}

// Whether `info` holds the frequencies of the model, which older versions of `transformers` saved:
// rope_theta^(-2i / head width), scaled. In fp16 and bf16 up to rounding.
bool are_frequencies(const TensorInfo& info, const std::string& name, const fs::path& path,
                     const ModelConfig& m) {
  const int64_t width = m.head_width();
  if (info.shape != std::vector<int64_t>{width / 2}) return false;
  const at::Tensor expected =
      at::pow(m.rope_theta, at::arange(0, width, 2, at::kDouble).div(-static_cast<double>(width)));
  scale_frequencies({expected.mutable_data_ptr<double>(), static_cast<size_t>(width / 2)},
                    m.rope_theta, m.rope_scaling);
  const double tolerance = dtype_size(info.dtype) > 2 ? 1e-5 : 1e-2;
  return at::allclose(in_double(info, name, path), expected, tolerance, /*atol=*/1e-7);
}

// Tensors that a Llama file may have and a model doesn't need, if their values are what the model
// computes anyway. Other values are refused: they belong to another function.
bool is_redundant(const SafetensorsFile& file, const std::string& name, const DecoderSpec& spec) {
  const TensorInfo& info = *file.find(name);
  if (name.ends_with("rotary_emb.inv_freq")) {
    if (are_frequencies(info, name, file.path(), spec.model)) return true;
    throw expected(fmt::format("the frequencies of rope_theta = {} in {}", spec.model.rope_theta,
                               printable(name)),
                   "others", fmt::format("in {}", file.path().string()),
                   "config.json and model.safetensors must belong to the same model");
  }
  if (name != "lm_head.weight" || !spec.model.tie_embeddings) return false;
  const TensorInfo* embedding = file.find("model.embed_tokens.weight");
  if (embedding != nullptr && embedding->dtype == info.dtype && embedding->shape == info.shape &&
      std::ranges::equal(embedding->bytes, info.bytes)) {
    return true;
  }
  throw expected(
      "lm_head.weight to be model.embed_tokens.weight, as tie_word_embeddings says", "another",
      fmt::format("in {}", file.path().string()),
      "\"tie_word_embeddings\": false in config.json makes the head a matrix of its own");
}

// Every tensor of the file must be a parameter: otherwise its model computes something else.
void refuse_unknown(const SafetensorsFile& file, const Decoder& model) {
  constexpr size_t kMostNames = 8;
  std::set<std::string> known;
  for (const Parameter& parameter : model.parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) known.insert(slice.name);
  }
  std::string names;
  size_t count = 0;
  for (const std::string& name : file.names()) {
    if (known.contains(name) || is_redundant(file, name, model.spec())) continue;
    if (++count <= kMostNames) names += (count > 1 ? ", " : "") + printable(name);
  }
  if (count == 0) return;
  if (count > kMostNames) names += fmt::format(" and {} more", count - kMostNames);
  throw expected(fmt::format("the tensors of scheme {} with {} layers", model.spec().scheme,
                             model.spec().model.layers),
                 "besides them " + names, "in " + file.path().string(),
                 "config.json (num_hidden_layers, the biases) and model.safetensors must belong to "
                 "the same model");
}

// Every parameter must be there in its shape.
void require_parameters(const SafetensorsFile& file, const ParameterTable& table) {
  for (const Parameter& parameter : table.parameters()) {
    for (const ParameterSlice& slice : parameter.slices) {
      const TensorInfo* found = file.find(slice.name);
      const Dtype type =
          found == nullptr ? Dtype::kF32 : to_dtype(floating_type(*found, slice.name, file.path()));
      static_cast<void>(file.require(slice.name, type, parameter.shape_of(slice)));
    }
  }
}

SafetensorsFile open_weights(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "model.safetensors.index.json", error)) {
    throw expected(fmt::format("one {}", kModelFile), "shards", "in " + folder.string(),
                   "save the model with a max_shard_size that is larger than the model");
  }
  if (fs::exists(folder / "adapter_config.json", error)) {
    throw expected("one whole model", "an adapter to add to it",
                   "in " + (folder / "adapter_config.json").string(),
                   "merge the adapter into the model and save that: merge_and_unload() of peft");
  }
  SafetensorsFile file(folder / kModelFile);
  const auto format = file.metadata().find("format");
  if (format != file.metadata().end() && (format->second == "tf" || format->second == "flax")) {
    throw expected("weights in PyTorch's layout", "format " + printable(format->second),
                   "in " + file.path().string(), "save the model from PyTorch");
  }
  return file;
}

}  // namespace

void TensorFile::add(const std::string& name, const at::Tensor& tensor) {
  kept_.push_back(tensor.detach().cpu().contiguous());
  const at::Tensor& kept = kept_.back();
  tensors_.push_back({name,
                      to_dtype(kept.scalar_type()),
                      kept.sizes().vec(),
                      {static_cast<const std::byte*>(kept.const_data_ptr()), kept.nbytes()}});
}

void TensorFile::add(const ParameterTable& table, const std::vector<at::Tensor>& buffers,
                     const std::string& prefix) {
  for (const Parameter& parameter : table.parameters()) {
    const at::Tensor whole = parameter.view(buffers[parameter.decay == Decay::kYes ? 0 : 1]);
    for (const ParameterSlice& slice : parameter.slices) {
      add(prefix + slice.name, parameter.rows(slice, whole));
    }
  }
}

FileDigest TensorFile::write(const fs::path& path,
                             const std::map<std::string, std::string>& metadata) {
  return write_safetensors(path, std::move(tensors_), metadata);
}

void read_tensors(const SafetensorsFile& file, const ParameterTable& table,
                  const std::vector<at::Tensor>& buffers, const std::string& prefix, bool convert) {
  const at::NoGradGuard no_grad;
  for (const Parameter& parameter : table.parameters()) {
    const at::Tensor whole = parameter.view(buffers[parameter.decay == Decay::kYes ? 0 : 1]);
    for (const ParameterSlice& slice : parameter.slices) {
      const std::string name = prefix + slice.name;
      at::Tensor target = parameter.rows(slice, whole).detach();
      at::ScalarType type = target.scalar_type();
      if (const TensorInfo* found = file.find(name); found != nullptr && convert) {
        type = floating_type(*found, name, file.path());
      }
      const TensorInfo& info = file.require(name, to_dtype(type), target.sizes().vec());
      at::Tensor host = at::empty(target.sizes(), type);
      std::memcpy(host.mutable_data_ptr(), info.bytes.data(), info.bytes.size());
      release_pages(info.bytes);
      target.copy_(host);
    }
  }
}

std::vector<at::Tensor> value_buffers(const ParameterTable& table) {
  std::vector<at::Tensor> buffers;
  for (const FlatGroup& group : table.groups()) buffers.push_back(group.value);
  return buffers;
}

std::vector<at::Tensor> grad_buffers(const ParameterTable& table) {
  std::vector<at::Tensor> buffers;
  for (const FlatGroup& group : table.groups()) buffers.push_back(group.grad);
  return buffers;
}

FileDigest save_parameters(const Decoder& model, const fs::path& path) {
  TensorFile file;
  file.add(model.parameters(), value_buffers(model.parameters()), "");
  return file.write(path, {{"format", "pt"}});  // expected by transformers
}

void check_weights(const DecoderSpec& spec, const fs::path& folder) {
  const SafetensorsFile file = open_weights(folder);
  const ModelConfig& m = spec.model;
  const int64_t q_width = m.heads * m.head_width(), kv_width = m.kv_heads * m.head_width();
  const auto residual =
      find_scheme(spec.scheme).create(spec.options, {m.layers, m.width}, m.rms_norm_eps);
  const int64_t last = residual->stored_layer(m.layers - 1);
  const auto require = [&](const std::string& name, const std::vector<int64_t>& shape,
                           const char* keys) {
    const TensorInfo* found = file.find(name);
    if (found != nullptr && found->shape == shape) return;
    throw expected(
        fmt::format("tensor {} of [{}] ({})", name, fmt::join(shape, ","), keys),
        found == nullptr ? "none of that name" : fmt::format("[{}]", fmt::join(found->shape, ",")),
        fmt::format("in {}", file.path().string()),
        "config.json and model.safetensors must belong to the same model");
  };
  require("model.embed_tokens.weight", {spec.vocab_size, m.width}, "vocab_size, hidden_size");
  const std::string layer = fmt::format("model.layers.{}.", last);
  require(layer + "self_attn.q_proj.weight", {q_width, m.width},
          "num_hidden_layers, hidden_size, head_dim");
  require(layer + "self_attn.k_proj.weight", {kv_width, m.width},
          "num_key_value_heads, hidden_size");
  require(layer + "mlp.gate_proj.weight", {m.hidden, m.width}, "intermediate_size, hidden_size");
}

void check_parameters(const Decoder& model, const fs::path& folder) {
  const SafetensorsFile file = open_weights(folder);
  refuse_unknown(file, model);
  require_parameters(file, model.parameters());
}

void load_parameters(Decoder& model, const fs::path& folder) {
  const SafetensorsFile file = open_weights(folder);
  refuse_unknown(file, model);
  require_parameters(file, model.parameters());
  if (model.parameters().groups().empty()) model.allocate(std::nullopt);
  read_tensors(file, model.parameters(), value_buffers(model.parameters()), "", /*convert=*/true);
  model.parameters().refresh_compute();
}

std::unique_ptr<Decoder> load_model(const fs::path& folder, Precision precision,
                                    at::Device device) {
  DecoderSpec spec = read_model_config(folder);
  check_weights(spec, folder);
  auto model = std::make_unique<Decoder>(std::move(spec), precision, device);
  load_parameters(*model, folder);
  return model;
}

}  // namespace wavroute
