// Models on disk: config.json and model.safetensors, in the layout of a Hugging Face Llama folder
// (method.md section 7).
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "wavroute/decoder.h"
#include "wavroute/safetensors.h"

namespace wavroute {

// The config.json of the model at this point of its training.
[[nodiscard]] nlohmann::json model_config(const Decoder& model, const Progress& progress);

// Reads config.json of a folder, ours or a Llama's. UserError for a model that this program does
// not compute (another model_type, scaled RoPE, biases, an unknown option of a scheme), naming the
// field. `ignored` gets the keys that mean nothing here nor in `transformers`.
[[nodiscard]] DecoderSpec read_model_config(const std::filesystem::path& folder,
                                            std::vector<std::string>* ignored = nullptr);

// The tensors of a file, gathered from flat buffers under their checkpoint names.
class TensorFile {
 public:
  // Every slice of `table`, with values from `buffers` (one per group of the table, in their
  // order), named `prefix` + the checkpoint name.
  void add(const ParameterTable& table, const std::vector<at::Tensor>& buffers,
           const std::string& prefix);
  void add(const std::string& name, const at::Tensor& tensor);
  FileDigest write(const std::filesystem::path& path,
                   const std::map<std::string, std::string>& metadata);

 private:
  std::vector<at::Tensor> kept_;  // own the bytes until write()
  std::vector<NamedTensor> tensors_;
};

// Fills `buffers` from what TensorFile::add wrote. UserError for a missing tensor or another shape
// or type; a floating-point type other than the buffers' is converted where `convert` allows it.
void read_tensors(const SafetensorsFile& file, const ParameterTable& table,
                  const std::vector<at::Tensor>& buffers, const std::string& prefix, bool convert);

// The flat values (or gradients) of all groups.
[[nodiscard]] std::vector<at::Tensor> value_buffers(const ParameterTable& table);
[[nodiscard]] std::vector<at::Tensor> grad_buffers(const ParameterTable& table);

// Writes the parameters, fp32 (fp64 for an fp64 model).
FileDigest save_parameters(const Decoder& model, const std::filesystem::path& path);
// Compares model.safetensors of `folder` with the sizes in `spec`, by its header alone, before
// anything of the model's size is allocated. UserError if they can't belong together.
void check_weights(const DecoderSpec& spec, const std::filesystem::path& folder);
// The same for all tensors: UserError where they are not exactly the model's.
void check_parameters(const Decoder& model, const std::filesystem::path& folder);
// Reads model.safetensors of `folder` into `model`, allocating its parameters if needed. Everything
// is checked against the file's header before that. UserError where the file's tensors are not
// exactly the model's: a checkpoint of another scheme, size or vocabulary.
void load_parameters(Decoder& model, const std::filesystem::path& folder);

// The model of a checkpoint folder, ours or a Llama's.
[[nodiscard]] std::unique_ptr<Decoder> load_model(const std::filesystem::path& folder,
                                                  Precision precision, at::Device device);

}  // namespace wavroute
