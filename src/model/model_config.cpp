// config.json, written and read.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/json_text.h"
#include "model/model_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Typed reading of config.json's fields.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  int64_t integer(const char* name) const {
    const Json* value = find(name);
    if (value == nullptr || !value->is_number_integer() || value->get<int64_t>() < 1) {
      fail(name, "an integer of at least 1");
    }
    return value->get<int64_t>();
  }
  int64_t integer_or(const char* name, int64_t otherwise) const {
    return find(name) == nullptr ? otherwise : integer(name);
  }
  double number_or(const char* name, double otherwise) const {
    const Json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) fail(name, "a number");
    return value->get<double>();
  }
  bool flag_or(const char* name, bool otherwise) const {
    const Json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(name, "true or false");
    return value->get<bool>();
  }
  std::string text_or(const char* name, const std::string& otherwise) const {
    const Json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) fail(name, "a string");
    return value->get<std::string>();
  }
  // Null: absent, or a JSON null.
  const Json* find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  [[noreturn]] void fail(const char* name, const std::string& expected) const {
    const Json* value = find(name);
    throw UserError(fmt::format("config.json: {} must be {}, {} was given, in {}", name, expected,
                                value == nullptr ? "nothing" : value->dump(), where_),
                    "wavroute reads its own models and plain Llama models");
  }

 private:
  const Json& object_;
  std::string where_;
};

double rope_theta(const Fields& fields, const std::string& where) {
  if (fields.find("rope_scaling") != nullptr) fields.fail("rope_scaling", "null (plain RoPE)");
  double theta = fields.number_or("rope_theta", 10000.0);
  if (const Json* parameters = fields.find("rope_parameters"); parameters != nullptr) {
    if (!parameters->is_object()) fields.fail("rope_parameters", "an object");
    const Fields rope(*parameters, where);
    if (rope.text_or("rope_type", "default") != "default") rope.fail("rope_type", "\"default\"");
    theta = rope.number_or("rope_theta", theta);
  }
  return theta;
}

// What a Llama may have and this decoder has not.
void refuse_other_functions(const Fields& fields, const ModelConfig& model) {
  if (fields.text_or("hidden_act", "silu") != "silu") fields.fail("hidden_act", "\"silu\"");
  for (const char* name : {"attention_bias", "mlp_bias"}) {
    if (fields.flag_or(name, false)) fields.fail(name, "false");
  }
  if (const int64_t width = model.width / std::max<int64_t>(model.heads, 1);
      fields.integer_or("head_dim", width) != width) {
    fields.fail("head_dim", fmt::format("hidden_size / num_attention_heads = {}", width));
  }
}

}  // namespace

Json model_config(const Decoder& model, const Progress& progress) {
  const ModelConfig& m = model.spec().model;
  const bool llama = model.residual().is_llama();
  Json config = {
      {"architectures", {llama ? "LlamaForCausalLM" : "WavrouteForCausalLM"}},
      {"model_type", llama ? "llama" : "wavroute"},
      {"hidden_size", m.width},
      {"num_hidden_layers", m.layers},
      {"num_attention_heads", m.heads},
      {"num_key_value_heads", m.kv_heads},
      {"head_dim", m.width / m.heads},
      {"intermediate_size", m.hidden},
      {"max_position_embeddings", m.context},
      {"vocab_size", model.spec().vocab_size},
      {"rms_norm_eps", m.rms_norm_eps},
      {"rope_theta", m.rope_theta},
      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", m.rope_theta}}},
      {"tie_word_embeddings", m.tie_embeddings},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"initializer_range", 0.02},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr},
      {"torch_dtype", "float32"},
  };
  config["residual"] = residual_to_json(model.spec().scheme, model.residual().options(progress));
  return config;
}

DecoderSpec read_model_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  const std::string where = path.string();
  const Json object = read_json(path);
  if (!object.is_object()) {
    throw UserError(fmt::format("a JSON object was expected in {}", where));
  }
  const Fields fields(object, where);
  const std::string type = fields.text_or("model_type", "");
  if (type != "llama" && type != "wavroute") {
    fields.fail("model_type", "\"llama\" or \"wavroute\"");
  }
  DecoderSpec spec;
  ModelConfig& m = spec.model;
  m.width = fields.integer("hidden_size");
  m.layers = fields.integer("num_hidden_layers");
  m.heads = fields.integer("num_attention_heads");
  m.kv_heads = fields.integer_or("num_key_value_heads", m.heads);
  m.hidden = fields.integer("intermediate_size");
  m.context = fields.integer_or("max_position_embeddings", m.context);
  m.rms_norm_eps = fields.number_or("rms_norm_eps", m.rms_norm_eps);
  m.tie_embeddings = fields.flag_or("tie_word_embeddings", false);
  m.rope_theta = rope_theta(fields, where);
  spec.vocab_size = fields.integer("vocab_size");
  refuse_other_functions(fields, m);
  if (const Json* residual = fields.find("residual"); residual != nullptr) {
    std::tie(spec.scheme, spec.options) = residual_from_json(*residual, where);
  } else if (type == "wavroute") {
    fields.fail("residual", "an object");
  }
  return spec;
}

}  // namespace wavroute
