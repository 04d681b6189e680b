// A Hugging Face Llama folder: config.json, and model.safetensors or its shards.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/printable.h"
#include "config/end_tokens.h"
#include "config/llama_config.h"
#include "config/rope_scaling.h"
#include "data/tokenizer_kinds.h"
#include "formats/foreign_model.h"
#include "formats/tensor_values.h"
#include "io/checkpoint_names.h"
#include "io/companions.h"
#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"
#include "wavroute/safetensors.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kIndex = "model.safetensors.index.json";

using Shards = std::map<std::string, SafetensorsFile>;

class Reader {
 public:
  explicit Reader(const fs::path& folder) : folder_(folder), where_(printable(folder.string())) {}

  ForeignModel read() {
    const fs::path config = folder_ / kConfigFile;
    if (!is_there(config)) {
      throw expected(fmt::format("a Hugging Face folder, with {} and its weights", kConfigFile),
                     fmt::format("one without {}", kConfigFile), fmt::format("at {}", where_),
                     "give the folder that holds them");
    }
    const Json object = read_json(config);
    const Json type = object.is_object() ? object.value("model_type", Json()) : Json();
    if (type != "llama") {
      const bool is_ours = type == "wavroute";
      throw expected("\"llama\" as model_type", json_excerpt(type),
                     fmt::format("in {}", printable(config.string())),
                     is_ours ? "a model of wavroute needs no import: eval, generate and train.init "
                               "take its folder as it is"
                             : "wavroute computes Llamas");
    }
    LlamaConfig llama = read_llama_config(object, config.string());
    ForeignModel result;
    result.format = "Hugging Face";
    result.model = llama.model;
    result.vocab_size = llama.vocab_size;
    result.ignored = std::move(llama.ignored);
    open_shards();
    add_tensors(result);
    for (const uint32_t id : read_end_tokens(folder_)) result.eos_ids.push_back(id);
    if (const auto bos = json_integer(object.value("bos_token_id", Json()))) result.bos_id = bos;
    result.tokenizer = read_hf_tokenizer(folder_);
    result.source = shards_;
    return result;
  }

 private:
  void open_shards() {
    const bool has_one = is_there(folder_ / kModelFile);
    if (is_there(folder_ / "adapter_config.json")) {
      throw expected("one whole model", "an adapter to add to it", fmt::format("in {}", where_),
                     "merge the adapter into the model and save that: merge_and_unload() of peft");
    }
    if (has_one || !is_there(folder_ / kIndex)) {
      add_shard(kModelFile);
      return;
    }
    const Json index = read_json(folder_ / kIndex);
    const Json map = index.is_object() ? index.value("weight_map", Json()) : Json();
    if (!map.is_object()) fail_index("an object weight_map", json_excerpt(map));
    for (const auto& [name, file] : map.items()) {
      if (!file.is_string()) fail_index("a file for " + printable(name), json_excerpt(file));
      const auto shard = file.get<std::string>();
      // A name, not a way out of the folder.
      if (shard.empty() || fs::path(shard).filename() != shard || shard == "..") {
        fail_index("the name of a file in this folder", printable(shard));
      }
      if (!shards_->contains(shard)) add_shard(shard);
      if (shards_->at(shard).find(name) == nullptr) {
        fail_index(fmt::format("{} in {}", printable(name), printable(shard)), "none of that name");
      }
    }
  }

  [[noreturn]] void fail_index(const std::string& what, const std::string& given) const {
    throw expected(what, given, fmt::format("in {}", printable((folder_ / kIndex).string())));
  }

  void add_shard(const std::string& name) {
    constexpr size_t kMost = 1024;
    if (shards_->size() == kMost) fail_index(fmt::format("at most {} files", kMost), "more");
    SafetensorsFile file(folder_ / name);
    for (const auto& [tensor, info] : file.tensors()) {
      if (all_.emplace(tensor, &info).second) continue;
      throw expected("each tensor once", printable(tensor) + " in two files",
                     fmt::format("in {}", where_));
    }
    const auto format = file.metadata().find("format");
    if (format != file.metadata().end() && (format->second == "tf" || format->second == "flax")) {
      throw expected("weights in PyTorch's layout", "format " + printable(format->second),
                     fmt::format("in {}", where_), "save the model from PyTorch");
    }
    // The map's nodes, and so the addresses in all_, stay where they are when the file moves.
    shards_->emplace(name, std::move(file));
  }

  const TensorInfo* find(const std::string& name) const {
    const auto found = all_.find(name);
    return found == all_.end() ? nullptr : found->second;
  }

  void add_tensors(ForeignModel& result) {
    std::set<std::string> known;
    for (LlamaTensor& tensor : llama_tensors(result.model, result.vocab_size)) {
      const TensorInfo* found = find(tensor.name);
      if (found == nullptr || found->shape != tensor.shape || !is_floating(found->dtype)) {
        throw expected(fmt::format("floating-point tensor {} of [{}]", tensor.name,
                                   fmt::join(tensor.shape, ",")),
                       found == nullptr ? "none of that name"
                                        : fmt::format("{} of [{}]", dtype_name(found->dtype),
                                                      fmt::join(found->shape, ",")),
                       fmt::format("in {}", where_),
                       "config.json and the weights must belong to the same model");
      }
      known.insert(tensor.name);
      result.tensors.push_back({tensor.name, std::move(tensor.shape),
                                [found](std::span<float> out) { to_floats(*found, out); }});
    }
    for (const auto& [name, info] : all_) {
      if (known.contains(name) || is_redundant(name, *info, result.model)) continue;
      throw expected(fmt::format("the tensors of a Llama with {} layers", result.model.layers),
                     "besides them " + printable(name), fmt::format("in {}", where_),
                     "config.json and the weights must belong to the same model");
    }
  }

  // What the model computes anyway: frequencies that older versions saved, a head that is tied.
  bool is_redundant(const std::string& name, const TensorInfo& info, const ModelConfig& m) const {
    if (name == "lm_head.weight" && m.tie_embeddings) {
      const TensorInfo* embedding = find("model.embed_tokens.weight");
      return embedding->dtype == info.dtype && std::ranges::equal(embedding->bytes, info.bytes);
    }
    const auto half = static_cast<size_t>(m.head_width() / 2);
    if (!name.ends_with("rotary_emb.inv_freq") || !is_floating(info.dtype) ||
        info.shape != std::vector<int64_t>{m.head_width() / 2}) {
      return false;
    }
    std::vector<double> expected;
    expected.reserve(half);
    for (size_t i = 0; i < half; ++i) {
      expected.push_back(
          std::pow(m.rope_theta, -static_cast<double>(i) / static_cast<double>(half)));
    }
    scale_frequencies(expected, m.rope_theta, m.rope_scaling);
    std::vector<float> stored(half);
    to_floats(info, stored);
    const double tolerance = dtype_size(info.dtype) > 2 ? 1e-5 : 1e-2;
    for (size_t i = 0; i < half; ++i) {
      const double error = std::abs(static_cast<double>(stored[i]) - expected[i]);
      if (!(error <= tolerance * expected[i] + 1e-7)) return false;
    }
    return true;
  }

  fs::path folder_;
  std::string where_;
  std::shared_ptr<Shards> shards_ = std::make_shared<Shards>();
  std::map<std::string, const TensorInfo*> all_;
};

}  // namespace

ForeignTokenizer read_hf_tokenizer(const fs::path& folder) {
  ForeignTokenizer tokenizer;
  const fs::path file = folder / kTokenizerFile, settings = folder / kTokenizerConfigFile;
  if (is_there(file)) tokenizer.json = read_file(file, kTokenizerLimits.bytes);
  const Json json = is_there(settings) ? read_json(settings) : Json::object();
  if (!json.is_object()) return tokenizer;
  // A text, or an object that has it as its content.
  const auto text = [&](const char* key) {
    const Json value = json.value(key, Json());
    const Json content = value.is_object() ? value.value("content", Json()) : value;
    return content.is_string() ? content.get<std::string>() : std::string();
  };
  tokenizer.bos = text("bos_token");
  tokenizer.eos = text("eos_token");
  tokenizer.chat_template = text("chat_template");
  const Json templates = json.value("chat_template", Json());
  for (const Json& item : templates.is_array() ? templates : Json::array()) {
    if (item.is_object() && item.value("name", Json()) == "default" &&
        item.value("template", Json()).is_string()) {
      tokenizer.chat_template = item["template"].get<std::string>();
    }
  }
  constexpr uint64_t kMostTemplateBytes = uint64_t{1} << 20;
  const fs::path jinja = folder / kChatTemplateFile;
  if (is_there(jinja)) tokenizer.chat_template = read_file(jinja, kMostTemplateBytes);
  return tokenizer;
}

ForeignModel open_hf_folder(const fs::path& folder) { return Reader(folder).read(); }

}  // namespace wavroute
