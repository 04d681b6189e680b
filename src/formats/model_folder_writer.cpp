// The folder that import writes.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "config/literal.h"
#include "config/llama_config.h"
#include "config/rope_scaling.h"
#include "formats/foreign_model.h"
#include "formats/tensor_values.h"
#include "io/checkpoint_names.h"
#include "io/companions.h"
#include "io/file.h"
#include "wavroute/error.h"
#include "wavroute/safetensors.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The bytes tokenizer, however it was written, as we write it; null for another.
std::shared_ptr<const Tokenizer> as_bytes(const std::string& json) {
  try {
    auto tokenizer = tokenizer_from_json(json);
    if (tokenizer->name() == "bytes") return tokenizer;
  } catch (const UserError&) {  // one that this version can't read is not of bytes
  }
  return nullptr;
}

std::string generation_config(const ForeignModel& model) {
  Json config = {{"_from_model_config", true}};
  if (model.bos_id) config["bos_token_id"] = *model.bos_id;
  if (model.eos_ids.size() == 1) config["eos_token_id"] = model.eos_ids.front();
  if (model.eos_ids.size() > 1) config["eos_token_id"] = model.eos_ids;
  return config.dump(2) + "\n";
}

std::string tokenizer_config(const ForeignModel& model) {
  const ForeignTokenizer& tokenizer = model.tokenizer;
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"model_max_length", model.model.context},
                 {"clean_up_tokenization_spaces", false}};
  if (!tokenizer.bos.empty()) config["bos_token"] = tokenizer.bos;
  if (!tokenizer.eos.empty()) config["eos_token"] = tokenizer.eos;
  if (!tokenizer.chat_template.empty()) config["chat_template"] = tokenizer.chat_template;
  return config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// A configuration that goes on with these weights at once, on any text.
std::string config_toml(const ForeignModel& model, const std::string& name,
                        const std::string& tokenizer, const std::string& scheme,
                        const Options& options) {
  constexpr int64_t kContext = 512;  // [ours]: what most machines hold; the rest is one edit away
  const ModelConfig& m = model.model;
  std::string text = fmt::format(
      "# Trains this model further: wavroute train {}/config.toml --set data.train=TEXT\n"
      "# The learning rate is a tenth of what a new model takes; context is what one sequence of\n"
      "# training has, the model reads {} tokens.\n",
      name, m.context);
  const auto section = [&](const char* title) { text += fmt::format("\n[{}]\n", title); };
  const auto add = [&](const char* key, const std::string& value) {
    text += fmt::format("{} = {}\n", key, value);
  };
  text += fmt::format("name = {}\n", literal(name));
  section("model");
  add("layers", literal(m.layers));
  add("width", literal(m.width));
  add("heads", literal(m.heads));
  add("kv_heads", literal(m.kv_heads));
  if (m.head_dim > 0) add("head_dim", literal(m.head_dim));
  add("hidden", literal(m.hidden));
  add("context", literal(std::min(m.context, kContext)));
  add("tie_embeddings", literal(m.tie_embeddings));
  add("rms_norm_eps", literal(m.rms_norm_eps));
  add("rope_theta", literal(m.rope_theta));
  if (m.rope_scaling.rope_type != RopeType::kDefault) {
    add("rope_scaling", literal(m.rope_scaling));
  }
  if (m.attention_bias) add("attention_bias", literal(true));
  section("residual");
  add("scheme", literal(scheme));
  for (const auto& [key, value] : options) add(key.c_str(), literal(value));
  section("data");
  if (!tokenizer.empty()) add("tokenizer", literal(tokenizer));
  section("optimizer");
  add("lr", literal(1e-4));
  section("schedule");
  add("warmup", literal(0.1));
  section("train");
  add("init", literal(std::string(".")));
  add("steps", literal(int64_t{200}));
  add("batch", literal(int64_t{8}));
  add("eval_every", literal(int64_t{50}));
  add("save_every", literal(int64_t{100}));
  return text;
}

void write_weights(const ForeignModel& model, const fs::path& file, Dtype type) {
  std::vector<LazyTensor> tensors;
  std::vector<float> values;
  for (const ForeignTensor& tensor : model.tensors) {
    tensors.push_back(
        {tensor.name, type, tensor.shape, [&values, &tensor, type](std::span<std::byte> bytes) {
           values.resize(bytes.size() / dtype_size(type));
           tensor.read(values);
           from_floats(values, type, bytes);
         }});
  }
  write_safetensors(file, std::move(tensors), {{"format", "pt"}});
}

}  // namespace

void write_companions(const ForeignModel& model, const fs::path& folder,
                      const FolderOptions& options) {
  std::string tokenizer;
  if (!model.tokenizer.json.empty()) {
    const auto bytes = as_bytes(model.tokenizer.json);
    tokenizer = bytes ? "bytes" : kTokenizerFile;
    write_file_atomic(folder / kTokenizerFile, bytes ? bytes->to_json() : model.tokenizer.json);
    write_file_atomic(folder / kTokenizerConfigFile, tokenizer_config(model));
  }
  write_file_atomic(folder / kGenerationConfigFile, generation_config(model));
  if (options.configuration.empty()) return;
  write_file_atomic(folder / "config.toml", config_toml(model, options.configuration, tokenizer,
                                                        options.scheme, options.options));
}

nlohmann::json with_end_tokens(nlohmann::json config, const ForeignModel& model) {
  config["bos_token_id"] = model.bos_id ? nlohmann::json(*model.bos_id) : nlohmann::json();
  config["eos_token_id"] = nullptr;
  if (model.eos_ids.size() == 1) config["eos_token_id"] = model.eos_ids.front();
  if (model.eos_ids.size() > 1) config["eos_token_id"] = model.eos_ids;
  return config;
}

void write_model_folder(const ForeignModel& model, const fs::path& folder,
                        const FolderOptions& options) {
  write_companions(model, folder, options);
  nlohmann::json config = llama_config_to_json(model.model, model.vocab_size);
  if (options.type != Dtype::kF32) {
    config["torch_dtype"] = options.type == Dtype::kF16 ? "float16" : "bfloat16";
  }
  write_file_atomic(folder / kConfigFile, with_end_tokens(std::move(config), model).dump(2) + "\n");
  write_weights(model, folder / kModelFile, options.type);
}

}  // namespace wavroute
