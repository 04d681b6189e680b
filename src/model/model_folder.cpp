#include "model/model_folder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelFile = "model.safetensors";

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
      throw Failure(fmt::format("a tensor type that a checkpoint holds was expected, {} was given",
                                c10::toString(type)));
  }
}

// The type of a floating-point tensor in a file; UserError for any other.
at::ScalarType floating_type(const TensorInfo& info, const std::string& name,
                             const fs::path& path) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    if (to_dtype(type) == info.dtype) return type;
  }
  throw UserError(fmt::format("tensor {} must be of a floating-point type, {} was given, in {}",
                              name, dtype_name(info.dtype), path.string()),
                  "save the model in fp32, fp16 or bf16");
}

// Names that a Llama file may carry and a model doesn't need.
bool is_ignored(const std::string& name, bool tied) {
  return name.ends_with(".rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
}

// Every tensor of the file must be a parameter: else its model computes something else.
void refuse_unknown(const SafetensorsFile& file, const Decoder& model) {
  std::set<std::string> known;
  for (const Parameter& parameter : model.parameters().parameters()) {
    for (const ParameterSlice& slice : parameter.slices) known.insert(slice.name);
  }
  for (const std::string& name : file.names()) {
    if (known.contains(name) || is_ignored(name, model.spec().model.tie_embeddings)) continue;
    throw UserError(fmt::format("{} holds a tensor that scheme {} does not have: {}",
                                file.path().string(), model.spec().scheme, name),
                    "config.json and model.safetensors must belong to the same model");
  }
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
  return file.write(path, {{"format", "pt"}});  // what transformers looks for
}

void load_parameters(Decoder& model, const fs::path& folder) {
  if (fs::exists(folder / "model.safetensors.index.json")) {
    throw UserError(
        fmt::format("one {} was expected, shards were given, in {}", kModelFile, folder.string()),
        "save the model with a max_shard_size that is larger than the model");
  }
  const SafetensorsFile file(folder / kModelFile);
  refuse_unknown(file, model);
  require_parameters(file, model.parameters());
  if (model.parameters().groups().empty()) model.allocate(0);
  read_tensors(file, model.parameters(), value_buffers(model.parameters()), "", /*convert=*/true);
  model.parameters().refresh_compute();
}

std::unique_ptr<Decoder> load_model(const fs::path& folder, Precision precision,
                                    at::Device device) {
  auto model = std::make_unique<Decoder>(read_model_config(folder), precision, device);
  load_parameters(*model, folder);
  return model;
}

}  // namespace wavroute
