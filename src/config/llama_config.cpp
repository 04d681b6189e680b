#include "config/llama_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "config/llama_keys.h"
#include "config/model_size.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Json = nlohmann::json;

constexpr const char* kHint =
    "wavroute computes a Llama with plain RoPE, RMSNorm, SwiGLU and no biases";

// Keys that the reader itself uses.
constexpr std::string_view kRead[] = {
    "hidden_size",  "num_hidden_layers",   "num_attention_heads", "num_key_value_heads",
    "head_dim",     "intermediate_size",   "vocab_size",          "max_position_embeddings",
    "rms_norm_eps", "tie_word_embeddings", "rope_theta",          "rope_scaling",
    "layer_types",  "rope_parameters"};

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
    m.rope_theta = rope_theta();
    result.vocab_size = integer("vocab_size");
    if (const auto fault = find_model_fault(m, result.vocab_size, kHuggingFaceKeys)) {
      const std::string& key = fault->keys.front();
      const bool is_named = fault->expected.find(key) != std::string::npos;
      throw wavroute::expected(fault->expected, fault->given,
                               fmt::format("{}in {}", is_named ? "" : "for " + key + " ", where_),
                               fault->hint.empty() ? kHint : fault->hint);
    }
    if (present("head_dim") && integer("head_dim") != m.width / m.heads) {
      fail("head_dim", fmt::format("hidden_size / num_attention_heads = {}", m.width / m.heads));
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
    const auto scaling = plain_rope("rope_scaling");
    const auto parameters = plain_rope("rope_parameters");
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

  std::optional<double> base_of(const Json& object, const std::string& key) const {
    const auto found = object.find("rope_theta");
    if (found == object.end()) return std::nullopt;
    if (!found->is_number() || !(found->get<double>() > 0)) {
      fail(key, "a number above 0", json_excerpt(*found));
    }
    return found->get<double>();
  }

  // The base that an object of RoPE parameters gives, if it does. Everything else in it must be
  // plain RoPE's.
  std::optional<double> plain_rope(const std::string& name) const {
    const Json* rope = find(name);
    if (rope == nullptr || is_empty_or_null(*rope)) return std::nullopt;
    if (!rope->is_object()) fail(name, "an object or null");
    bool is_linear = false;
    for (const char* key : {"rope_type", "type"}) {
      const auto found = rope->find(key);
      if (found == rope->end()) continue;
      // The frequencies of "linear" are divided by the factor, which must be 1 below.
      is_linear = is_linear || is_word_of(*found, {"linear"});
      if (!is_linear && !is_word_of(*found, {"default"})) {
        fail(name + "." + key, "\"default\" (plain RoPE)", json_excerpt(*found));
      }
    }
    if (is_linear && !rope->contains("factor")) fail(name + ".factor", "1 (plain RoPE)");
    for (const auto& [key, value] : rope->items()) {
      if (key == "rope_type" || key == "type" || key == "rope_theta") continue;
      const bool is_factor = key == "factor" || key == "partial_rotary_factor";
      if (!is_factor || !is_one_or_null(value) || (is_linear && value.is_null())) {
        fail(fmt::format("{}.{}", name, key),
             is_factor ? "1 (plain RoPE)" : "no such key of plain RoPE", json_excerpt(value));
      }
    }
    return base_of(*rope, name + ".rope_theta");
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

}  // namespace

LlamaConfig read_llama_config(const Json& config, const std::string& where) {
  return Reader(config, where).read();
}

}  // namespace wavroute
