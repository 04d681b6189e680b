// A model of another program, opened and checked, before any of its weights is read: a Hugging Face
// folder, a GGUF file, a checkpoint of llama2.c. What is read is a Llama.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "wavroute/config.h"
#include "wavroute/safetensors.h"

namespace wavroute {

// A tensor under its name in a Hugging Face folder.
struct ForeignTensor {
  std::string name;
  std::vector<int64_t> shape;
  // Fills as many numbers as the shape has, in this order.
  std::function<void(std::span<float>)> read;
};

struct ForeignTokenizer {
  std::string json;           // the text of tokenizer.json; empty: the source has none
  std::string chat_template;  // Jinja; empty: none
  std::string bos, eos;       // the tokens' texts, for tokenizer_config.json; empty: none
};

struct ForeignModel {
  std::string format;  // "GGUF", for messages
  ModelConfig model;   // kv_heads and hidden resolved
  int64_t vocab_size = 0;
  std::vector<ForeignTensor> tensors;  // exactly the model's
  ForeignTokenizer tokenizer;
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;
  std::vector<std::string> ignored;    // keys that mean nothing here, to be named once
  std::shared_ptr<const void> source;  // what `read` reads from
};

// `tokenizer`: a file to take the tokenizer from instead (a tokenizer.json, a GGUF, llama2.c's
// tokenizer.bin); empty: what the source has. UserError for what isn't a Llama of the kinds above,
// for sizes that contradict the tensors, and for anything damaged.
[[nodiscard]] ForeignModel open_foreign_model(const std::filesystem::path& source,
                                              const std::filesystem::path& tokenizer);

[[nodiscard]] ForeignModel open_hf_folder(const std::filesystem::path& folder);
// with_tokenizer: false where another one is taken, and its own may be of any kind.
[[nodiscard]] ForeignModel open_gguf_model(const std::filesystem::path& file,
                                           bool with_tokenizer = true);
[[nodiscard]] ForeignModel open_llama2c(const std::filesystem::path& file);

// tokenizer.json and what tokenizer_config.json and chat_template.jinja say; empty where they are
// not there.
[[nodiscard]] ForeignTokenizer read_hf_tokenizer(const std::filesystem::path& folder);

// The tensors of a Llama under Hugging Face's names, in a fixed order.
struct LlamaTensor {
  std::string name;
  std::vector<int64_t> shape;
};
[[nodiscard]] std::vector<LlamaTensor> llama_tensors(const ModelConfig& model, int64_t vocab_size);

// UserError where the sizes are no model's; `where` names the source, `hint` is for a fault without
// one of its own.
void check_sizes(const ForeignModel& model, const std::string& where, const std::string& hint = {});

struct FolderOptions {
  Dtype type = Dtype::kF32;        // of the weights; or kF16, kBF16
  std::string configuration = {};  // the run's name in config.toml; empty: no such file
  std::string scheme = {};         // for config.toml
  Options options = {};            // of the scheme, likewise
};

// Into a new folder (new_folder.h): config.json, model.safetensors, and what write_companions
// writes. Never more than one tensor in memory.
void write_model_folder(const ForeignModel& model, const std::filesystem::path& folder,
                        const FolderOptions& options);
// tokenizer.json, tokenizer_config.json, generation_config.json and config.toml.
void write_companions(const ForeignModel& model, const std::filesystem::path& folder,
                      const FolderOptions& options);
// config.json with the model's bos_token_id and eos_token_id.
[[nodiscard]] nlohmann::json with_end_tokens(nlohmann::json config, const ForeignModel& model);

}  // namespace wavroute
