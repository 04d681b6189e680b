#include "formats/foreign_model.h"

#include <fmt/format.h>

#include "base/printable.h"
#include "config/model_size.h"
#include "data/gguf_tokenizer.h"
#include "formats/tokenizer_files.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

ForeignModel open(const fs::path& source, bool with_tokenizer) {
  if (!is_there(source)) {
    throw expected("a Hugging Face folder, a .gguf or a llama2.c .bin", "nothing",
                   fmt::format("at {}", printable(source.string())));
  }
  if (fs::is_directory(source)) return open_hf_folder(source);
  if (is_gguf(source)) return open_gguf_model(source, with_tokenizer);
  if (source.extension() == ".safetensors" || source.extension() == ".json") {
    throw expected("a Hugging Face folder, a .gguf or a llama2.c .bin", "a file of such a folder",
                   fmt::format("at {}", printable(source.string())),
                   "give the folder that holds it");
  }
  return open_llama2c(source);
}

}  // namespace

ForeignModel open_foreign_model(const fs::path& source, const fs::path& tokenizer) {
  ForeignModel model = open(source, tokenizer.empty());
  if (!tokenizer.empty()) {
    ForeignTokenizer other = read_tokenizer_file(tokenizer, model.vocab_size);
    // The template and the ends are the model's, however its texts are cut.
    const auto keep = [](std::string& text, const std::string& own) {
      if (text.empty()) text = own;
    };
    keep(other.chat_template, model.tokenizer.chat_template);
    keep(other.bos, model.tokenizer.bos);
    keep(other.eos, model.tokenizer.eos);
    model.tokenizer = std::move(other);
  } else if (model.tokenizer.json.empty() && model.format == "llama2.c") {
    // Beside stories260K.bin lies tok512.bin; llama2.c itself wants tokenizer.bin.
    for (const std::string& name :
         {fmt::format("tok{}.bin", model.vocab_size), std::string("tokenizer.bin")}) {
      const fs::path beside = source.parent_path() / name;
      if (!is_there(beside)) continue;
      model.tokenizer = read_tokenizer_file(beside, model.vocab_size);
      break;
    }
  }
  return model;
}

std::vector<LlamaTensor> llama_tensors(const ModelConfig& m, int64_t vocab_size) {
  std::vector<LlamaTensor> all;
  const int64_t q = m.heads * m.head_width(), kv = m.kv_heads * m.head_width();
  all.push_back({"model.embed_tokens.weight", {vocab_size, m.width}});
  for (int64_t i = 0; i < m.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      all.push_back({layer + name, std::move(shape)});
    };
    add("input_layernorm.weight", {m.width});
    add("self_attn.q_proj.weight", {q, m.width});
    add("self_attn.k_proj.weight", {kv, m.width});
    add("self_attn.v_proj.weight", {kv, m.width});
    add("self_attn.o_proj.weight", {m.width, q});
    if (m.attention_bias) {
      add("self_attn.q_proj.bias", {q});
      add("self_attn.k_proj.bias", {kv});
      add("self_attn.v_proj.bias", {kv});
      add("self_attn.o_proj.bias", {m.width});
    }
    add("post_attention_layernorm.weight", {m.width});
    add("mlp.gate_proj.weight", {m.hidden, m.width});
    add("mlp.up_proj.weight", {m.hidden, m.width});
    add("mlp.down_proj.weight", {m.width, m.hidden});
  }
  all.push_back({"model.norm.weight", {m.width}});
  if (!m.tie_embeddings) all.push_back({"lm_head.weight", {vocab_size, m.width}});
  return all;
}

void check_sizes(const ForeignModel& model, const std::string& where, const std::string& hint) {
  const auto fault = find_model_fault(model.model, model.vocab_size, kHuggingFaceKeys);
  if (!fault) return;
  throw expected(fault->expected, fault->given, fmt::format("in {}", where),
                 fault->hint.empty() ? hint : fault->hint);
}

}  // namespace wavroute
