#include "formats/modelling.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "data/tokenizer_kinds.h"
#include "formats/new_folder.h"
#include "formats/tensor_values.h"
#include "io/checkpoint_names.h"
#include "io/companions.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

std::string config_text(const fs::path& folder, Dtype type) {
  nlohmann::json config = read_json(folder / kConfigFile);
  config["architectures"] = {"WavrouteForCausalLM"};
  config["model_type"] = "wavroute";
  config["auto_map"] = {{"AutoConfig", "configuration_wavroute.WavrouteConfig"},
                        {"AutoModelForCausalLM", "modeling_wavroute.WavrouteForCausalLM"}};
  config["torch_dtype"] = type == Dtype::kF32   ? "float32"
                          : type == Dtype::kF16 ? "float16"
                                                : "bfloat16";
  return config.dump(2) + "\n";
}

void write_weights(const fs::path& folder, const fs::path& out, Dtype type) {
  const SafetensorsFile file(folder / kModelFile);
  std::vector<LazyTensor> tensors;
  std::vector<float> values;
  for (const auto& [name, tensor] : file.tensors()) {
    if (!is_floating(tensor.dtype)) {
      throw expected(fmt::format("floating-point tensor {}", printable(name)),
                     std::string(dtype_name(tensor.dtype)),
                     fmt::format("in {}", printable(file.path().string())));
    }
    const TensorInfo* info = &tensor;
    tensors.push_back({name, type, tensor.shape, [info, &values, type](std::span<std::byte> bytes) {
                         values.resize(bytes.size() / dtype_size(type));
                         to_floats(*info, values);
                         from_floats(values, type, bytes);
                       }});
  }
  write_safetensors(out / kModelFile, std::move(tensors), {{"format", "pt"}});
}

}  // namespace

void write_modelling_folder(const fs::path& folder, const fs::path& out, Dtype type) {
  NewFolder made(out);
  write_file_atomic(made.at() / kConfigFile, config_text(folder, type));
  for (const ModellingFile& file : modelling_files()) {
    write_file_atomic(made.at() / file.name, file.text);
  }
  for (const auto& [name, content] : read_companions(folder)) {
    write_file_atomic(made.at() / name, content);
  }
  if (is_there(folder / kTokenizerFile)) {
    write_file_atomic(made.at() / kTokenizerFile,
                      read_file(folder / kTokenizerFile, kTokenizerLimits.bytes));
  }
  write_weights(folder, made.at(), type);
  made.commit();
}

}  // namespace wavroute
