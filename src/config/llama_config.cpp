#include "config/llama_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "config/llama_keys.h"
#include "config/model_size.h"
#include "config/rope_scaling.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Json = nlohmann::json;

constexpr const char* kHint =
    "wavroute computes a Llama with RMSNorm, SwiGLU, and plain, linear, llama3 or yarn RoPE";

// Keys that the reader itself uses.
constexpr std::string_view kRead[] = {"hidden_size",
                                      "num_hidden_layers",
                                      "num_attention_heads",
                                      "num_key_value_heads",
                                      "head_dim",
                                      "intermediate_size",
                                      "vocab_size",
                                      "max_position_embeddings",
                                      "rms_norm_eps",
                                      "tie_word_embeddings",
                                      "rope_theta",
                                      "rope_scaling",
                                      "layer_types",
                                      "rope_parameters",
                                      "attention_bias",
                                      "original_max_position_embeddings"};

class Reader {
 public:
  Reader(const Json& config, const std::string& where) : config_(config), where_(where) {
    if (!config_.is_object()) {
      throw expected("a JSON object", json_excerpt(config_), fmt::format("in {}", where_),
                     "a Hugging Face folder holds a config.json that describes its model");
    }
  }

  LlamaConfig read() const {
    LlamaConfig result;
    ModelConfig& m = result.model;
    m.width = integer("hidden_size");
    m.layers = integer("num_hidden_layers");
    m.heads = integer("num_attention_heads");
    m.kv_heads = present("num_key_value_heads") ? integer("num_key_value_heads") : m.heads;
    m.hidden = integer("intermediate_size");
    m.context = integer_or("max_position_embeddings", 2048);  // as there
    m.rms_norm_eps = number_or("rms_norm_eps", 1e-6);
    m.tie_embeddings = flag_or("tie_word_embeddings", false);
    if (present("head_dim")) m.head_dim = integer("head_dim");
    // One number for one shape, however it was spelled.
    if (m.width % m.heads == 0 && m.head_dim == m.width / m.heads) m.head_dim = 0;
    m.attention_bias = flag_or("attention_bias", false);
    m.rope_scaling = resolved(rope_scaling(), m.context);
    m.rope_theta = rope_theta();
    result.vocab_size = integer("vocab_size");
    if (const auto fault = find_model_fault(m, result.vocab_size, kHuggingFaceKeys)) {
      const std::string& key = fault->keys.front();
      const bool is_named = fault->expected.find(key) != std::string::npos;
      throw wavroute::expected(fault->expected, fault->given,
                               fmt::format("{}in {}", is_named ? "" : "for " + key + " ", where_),
                               fault->hint.empty() ? kHint : fault->hint);
    }
    check_layer_types(m.layers);
    for (const LlamaRule& rule : llama_rules()) {
      const Json* value = find(rule.key);
      if (value != nullptr && !rule.accepts(*value)) fail(rule.key, rule.expected);
    }
    for (const auto& [key, value] : config_.items()) {
      if (!is_known(key)) result.ignored.push_back(key);
    }
    return result;
  }

 private:
  static bool is_known(const std::string& key) {
    return std::ranges::count(kRead, key) > 0 || is_neutral_llama_key(key) ||
           std::ranges::any_of(llama_rules(),
                               [&](const LlamaRule& rule) { return key == rule.key; });
  }

  const Json* find(const std::string& key) const {
    const auto found = config_.find(key);
    return found == config_.end() ? nullptr : &*found;
  }
  bool present(const std::string& key) const {
    const Json* value = find(key);
    return value != nullptr && !value->is_null();
  }

  [[noreturn]] void fail(const std::string& key, const std::string& expected) const {
    const Json* value = find(key);
    fail(key, expected, value == nullptr ? "nothing" : json_excerpt(*value));
  }
  [[noreturn]] void fail(const std::string& key, const std::string& expected,
                         const std::string& given) const {
    throw wavroute::expected(fmt::format("{} as {}", expected, key), given,
                             fmt::format("in {}", where_), kHint);
  }

  // What must be a number is one: a null stands for nothing there either.
  int64_t integer(const std::string& key) const {
    const Json* value = find(key);
    const auto number = value == nullptr ? std::nullopt : json_integer(*value);
    if (!number || *number < 1) fail(key, "an integer of at least 1");
    return *number;
  }
  int64_t integer_or(const std::string& key, int64_t otherwise) const {
    return find(key) == nullptr ? otherwise : integer(key);
  }
  double number_or(const std::string& key, double otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) fail(key, "a number");
    return value->get<double>();
  }
  bool flag_or(const std::string& key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, "true or false");
    return value->get<bool>();
  }

  // rope_theta at the top (4), in rope_parameters (5), or in rope_scaling, which version 5 prefers
  // to rope_parameters if both are given. Places that contradict each other are refused: the
  // versions of `transformers` differ in which they believe.
  double rope_theta() const {
    const auto top = base_of(config_, "rope_theta");
    const auto scaling = base_within("rope_scaling");
    const auto parameters = base_within("rope_parameters");
    const Json* scaled = find("rope_scaling");
    const bool has_scaling = scaled != nullptr && !is_empty_or_null(*scaled);
    double theta = 10000.0;
    if (top) theta = *top;
    if (scaling) {
      theta = *scaling;
    } else if (parameters && !has_scaling) {
      theta = *parameters;
    }
    const std::pair<const char*, std::optional<double>> places[] = {
        {"rope_theta", top},
        {"rope_scaling.rope_theta", scaling},
        {"rope_parameters.rope_theta", parameters}};
    for (const auto& [key, value] : places) {
      if (value && *value != theta) {
        fail(key, fmt::format("the same rotary base everywhere ({})", theta),
             fmt::format("{}", *value));
      }
    }
    return theta;
  }

  // The object of RoPE parameters under `name`; null where it is absent, null or empty.
  const Json* rope_object(const std::string& name) const {
    const Json* rope = find(name);
    if (rope == nullptr || is_empty_or_null(*rope)) return nullptr;
    if (!rope->is_object()) fail(name, "an object or null");
    return rope;
  }

  std::optional<double> base_within(const std::string& name) const {
    const Json* rope = rope_object(name);
    return rope == nullptr ? std::nullopt : base_of(*rope, name + ".rope_theta");
  }

  // As for the base: rope_scaling before rope_parameters, and no contradiction.
  RopeScaling rope_scaling() const {
    const RopeScaling scaling = scaling_of("rope_scaling");
    const RopeScaling parameters = scaling_of("rope_parameters");
    if (rope_object("rope_scaling") == nullptr) return parameters;
    if (rope_object("rope_parameters") != nullptr && !(scaling == parameters)) {
      fail("rope_parameters", "what rope_scaling says");
    }
    return scaling;
  }

  std::optional<double> base_of(const Json& object, const std::string& key) const {
    const auto found = object.find("rope_theta");
    if (found == object.end()) return std::nullopt;
    if (!found->is_number() || !(found->get<double>() > 0)) {
      fail(key, "a number above 0", json_excerpt(*found));
    }
    return found->get<double>();
  }

  // What an object of RoPE parameters says besides the base. A key that its type doesn't read must
  // be one that could not change the function.
  RopeScaling scaling_of(const std::string& name) const {
    RopeScaling result;
    const Json* rope = rope_object(name);
    if (rope == nullptr) return result;
    result.rope_type = rope_type_of(*rope, name);
    const RopeType type = result.rope_type;
    const bool has_original = type == RopeType::kLlama3 || type == RopeType::kYarn;
    const std::string prefix = name + ".";
    const auto number = [&](const Json& value, const std::string& key) {
      if (!value.is_number()) fail(prefix + key, "a number", json_excerpt(value));
      return value.get<double>();
    };
    std::optional<double> mscale, mscale_all_dim;
    bool has_factor = false;
    for (const auto& [key, value] : rope->items()) {
      if (key == "rope_type" || key == "type" || key == "rope_theta") continue;
      if (key == "partial_rotary_factor" && is_one_or_null(value)) continue;
      if (key == "factor" && type == RopeType::kDefault && is_one_or_null(value)) continue;
      if (key == "factor" && type != RopeType::kDefault) {
        result.factor = number(value, key);
        has_factor = true;
      } else if (key == "original_max_position_embeddings" && has_original) {
        const auto whole = json_integer(value);
        if (!whole || *whole < 1)
          fail(prefix + key, "an integer of at least 1", json_excerpt(value));
        result.original_max_position_embeddings = *whole;
      } else if (key == "low_freq_factor" && type == RopeType::kLlama3) {
        result.low_freq_factor = number(value, key);
      } else if (key == "high_freq_factor" && type == RopeType::kLlama3) {
        result.high_freq_factor = number(value, key);
      } else if (type != RopeType::kYarn || !read_yarn(key, value, prefix, result)) {
        const bool is_mscale = key == "mscale" || key == "mscale_all_dim";
        if (type != RopeType::kYarn || !is_mscale) {
          fail(prefix + key, fmt::format("no such key of {} RoPE", to_string(type)),
               json_excerpt(value));
        }
        if (!value.is_null()) (key == "mscale" ? mscale : mscale_all_dim) = number(value, key);
      }
    }
    if (type != RopeType::kDefault && !has_factor) {
      fail(prefix + "factor", "a number", "nothing");
    }
    for (const char* key : {"low_freq_factor", "high_freq_factor"}) {
      if (type == RopeType::kLlama3 && !rope->contains(key))
        fail(prefix + key, "a number", "nothing");
    }
    // Where both places name the original context, `transformers` believes the one at the top.
    if (has_original && present("original_max_position_embeddings")) {
      result.original_max_position_embeddings = integer("original_max_position_embeddings");
    }
    if (!result.attention_factor && mscale.value_or(0) != 0 && mscale_all_dim.value_or(0) != 0) {
      const auto scale = [&](double by) {
        return result.factor <= 1 ? 1.0 : 0.1 * by * std::log(result.factor) + 1.0;
      };
      result.attention_factor = scale(*mscale) / scale(*mscale_all_dim);
    }
    return result;
  }

  RopeType rope_type_of(const Json& rope, const std::string& name) const {
    const auto newer = rope.find("rope_type"), older = rope.find("type");
    if (newer != rope.end() && older != rope.end() && *newer != *older) {
      fail(name + ".type", "the same word as rope_type", json_excerpt(*older));
    }
    for (const char* key : {"rope_type", "type"}) {
      const auto found = rope.find(key);
      if (found == rope.end()) continue;
      const auto type =
          found->is_string() ? find_choice<RopeType>(found->get<std::string>()) : std::nullopt;
      if (!type) {
        fail(name + "." + key, "\"default\", \"linear\", \"llama3\" or \"yarn\"",
             json_excerpt(*found));
      }
      return *type;
    }
    return RopeType::kDefault;
  }

  // False for a key that yarn doesn't have. A null or 0 stands for the default, as there.
  bool read_yarn(const std::string& key, const Json& value, const std::string& prefix,
                 RopeScaling& result) const {
    const bool is_number = key == "attention_factor" || key == "beta_fast" || key == "beta_slow";
    if (key != "truncate" && !is_number) return false;
    if (key == "truncate") {
      if (!value.is_boolean()) fail(prefix + key, "true or false", json_excerpt(value));
      result.truncate = value.get<bool>();
      return true;
    }
    if (value.is_null()) return true;
    if (!value.is_number()) fail(prefix + key, "a number", json_excerpt(value));
    const auto number = value.get<double>();
    if (key == "attention_factor") {
      result.attention_factor = number;
    } else if (number != 0) {
      (key == "beta_fast" ? result.beta_fast : result.beta_slow) = number;
    }
    return true;
  }

  void check_layer_types(int64_t layers) const {
    const Json* types = find("layer_types");
    if (types == nullptr || types->is_null()) return;
    const bool all_full = types->is_array() && std::ssize(*types) == layers &&
                          std::ranges::all_of(*types, [](const Json& t) {
                            return is_word_of(t, {"full_attention"});
                          });
    if (!all_full) fail("layer_types", fmt::format("\"full_attention\" for all {} layers", layers));
  }

  const Json& config_;
  const std::string& where_;
};

Json rope_to_json(const ModelConfig& m) {
  const RopeScaling& s = m.rope_scaling;
  Json json = {{"rope_type", to_string(s.rope_type)}, {"rope_theta", m.rope_theta}};
  if (s.rope_type == RopeType::kDefault) return json;
  json["factor"] = s.factor;
  if (s.rope_type == RopeType::kLinear) return json;
  json["original_max_position_embeddings"] = s.original_max_position_embeddings;
  if (s.rope_type == RopeType::kLlama3) {
    json["low_freq_factor"] = s.low_freq_factor;
    json["high_freq_factor"] = s.high_freq_factor;
    return json;
  }
  json["beta_fast"] = s.beta_fast;
  json["beta_slow"] = s.beta_slow;
  json["attention_factor"] = attention_factor(s);
  json["truncate"] = s.truncate;
  return json;
}

}  // namespace

Json llama_config_to_json(const ModelConfig& m, int64_t vocab_size) {
  Json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"hidden_size", m.width},
                 {"num_hidden_layers", m.layers},
                 {"num_attention_heads", m.heads},
                 {"num_key_value_heads", m.kv_heads},
                 {"head_dim", m.head_width()},
                 {"intermediate_size", m.hidden},
                 {"max_position_embeddings", m.context},
                 {"vocab_size", vocab_size},
                 {"rms_norm_eps", m.rms_norm_eps},
                 {"rope_theta", m.rope_theta},
                 {"rope_parameters", rope_to_json(m)},
                 {"tie_word_embeddings", m.tie_embeddings},
                 {"hidden_act", "silu"},
                 {"attention_bias", m.attention_bias},
                 {"mlp_bias", false},
                 {"initializer_range", 0.02},
                 {"torch_dtype", "float32"}};
  // Version 4 reads this one.
  if (m.rope_scaling.rope_type != RopeType::kDefault) {
    config["rope_scaling"] = rope_to_json(m);
    config["rope_scaling"].erase("rope_theta");
  }
  return config;
}

std::optional<int64_t> updating_sublayer(const std::string& tensor) {
  constexpr std::string_view kLayers = "model.layers.";
  const bool attention = tensor.find(".self_attn.o_proj.") != std::string::npos;
  if (!attention && tensor.find(".mlp.down_proj.") == std::string::npos) return std::nullopt;
  return 2 * std::stoll(tensor.substr(kLayers.size())) + (attention ? 0 : 1);
}

LlamaConfig read_llama_config(const Json& config, const std::string& where) {
  return Reader(config, where).read();
}

}  // namespace wavroute
