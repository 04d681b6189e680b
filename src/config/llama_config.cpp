#include "config/llama_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "config/model_size.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using Json = nlohmann::json;

constexpr const char* kHint =
    "wavroute computes a Llama with plain RoPE, RMSNorm, SwiGLU and no biases";

// --- values that leave the function as it is ----------------------------------------------------

bool is_null(const Json& v) { return v.is_null(); }
bool is_flag(const Json& v) { return v.is_boolean(); }
bool is_true(const Json& v) { return v.is_boolean() && v.get<bool>(); }
bool is_false(const Json& v) { return v.is_boolean() && !v.get<bool>(); }
bool is_off(const Json& v) { return v.is_null() || is_false(v); }
bool is_empty(const Json& v) { return v.is_null() || (v.is_structured() && v.empty()); }

bool is_count(const Json& v) {
  const auto value = json_integer(v);
  return v.is_null() || (value && *value >= 1);
}

bool is_share(const Json& v) {
  return v.is_number() && v.get<double>() >= 0 && v.get<double>() <= 1;
}
bool is_share_or_null(const Json& v) { return v.is_null() || is_share(v); }
bool is_one(const Json& v) { return v.is_null() || (v.is_number() && v.get<double>() == 1.0); }

bool is_token(const Json& v) { return v.is_null() || json_integer(v).has_value(); }
bool is_token_or_list(const Json& v) {
  return is_token(v) || (v.is_array() && std::all_of(v.begin(), v.end(), is_token));
}

bool is_word_of(const Json& v, std::initializer_list<std::string_view> words) {
  return v.is_string() && std::ranges::count(words, v.get_ref<const std::string&>()) > 0;
}

bool is_silu(const Json& v) { return is_word_of(v, {"silu", "swish"}); }

// How the weights lie in the file: they are converted.
bool is_weight_type(const Json& v) {
  return v.is_null() || is_word_of(v, {"float32", "float16", "bfloat16", "float64", "auto", "float",
                                       "half", "double", "torch.float32", "torch.float16",
                                       "torch.bfloat16", "torch.float64"});
}

bool names_a_language_model(const Json& v) {
  return is_empty(v) || (v.is_array() && std::ranges::all_of(v, [](const Json& name) {
                           return is_word_of(name, {"LlamaForCausalLM", "LLaMAForCausalLM",
                                                    "WavrouteForCausalLM"});
                         }));
}

// A key whose every other value is refused.
struct Rule {
  const char* key;
  bool (*accepts)(const Json&);
  const char* expected;
};

constexpr Rule kRules[] = {
    {"architectures", names_a_language_model, "[\"LlamaForCausalLM\"]"},
    {"hidden_act", is_silu, "\"silu\""},
    {"attention_bias", is_false, "false"},
    {"mlp_bias", is_false, "false"},
    {"partial_rotary_factor", is_one, "1"},
    {"quantization_config", is_null, "null (plain weights)"},
    {"compression_config", is_null, "null (plain weights)"},
    {"sliding_window", is_off, "null (attention to all earlier tokens)"},
    {"use_sliding_window", is_off, "false"},
    {"attention_chunk_size", is_null, "null"},
    {"is_causal", is_true, "true"},
    {"is_encoder_decoder", is_false, "false"},
    {"add_cross_attention", is_off, "false"},
    {"tie_encoder_decoder", is_off, "false"},
    {"pruned_heads", is_empty, "no pruned heads"},
    {"per_layer_config", is_empty, "one configuration for all layers"},
    {"kv_sharing_modes", is_empty, "null"},
    {"fusion_config", is_empty, "null"},
    {"distributed_config", is_empty, "null"},
    {"transformers_weights", is_null, "null (the weights lie in model.safetensors)"},
    // Objects that `transformers` takes for the model's configuration in place of the outer one.
    {"text_config", is_null, "null"},
    {"text_encoder", is_null, "null"},
    {"decoder", is_null, "null"},
    {"generator", is_null, "null"},
    // No effect on the logits, but a meaning.
    {"pretraining_tp", is_count, "an integer of at least 1"},
    {"attention_dropout", is_share_or_null, "a number from 0 to 1"},
    {"initializer_range", is_share, "a number from 0 to 1"},
    {"use_cache", is_flag, "true or false"},
    {"pad_token_id", is_token, "an integer or null"},
    {"bos_token_id", is_token_or_list, "an integer or null"},
    {"eos_token_id", is_token_or_list, "an integer, a list of them or null"},
    {"torch_dtype", is_weight_type, "float32, float16, bfloat16 or float64"},
    {"dtype", is_weight_type, "float32, float16, bfloat16 or float64"},
};

// Keys without an effect on the logits of a language model: names, output, training, sampling and
// the cache, of `transformers` 4 and 5.
constexpr std::string_view kNeutral[] = {"_attn_implementation",
                                         "_attn_implementation_autoset",
                                         "_attn_implementation_internal",
                                         "_commit_hash",
                                         "_experts_implementation",
                                         "_experts_implementation_internal",
                                         "_flash_attn_2_enabled",
                                         "_name_or_path",
                                         "assistant_confidence_threshold",
                                         "assistant_lookbehind",
                                         "attn_implementation",
                                         "bad_words_ids",
                                         "base_model_ep_plan",
                                         "base_model_fsdp_plan",
                                         "base_model_pp_plan",
                                         "base_model_tp_plan",
                                         "begin_suppress_tokens",
                                         "chunk_size_feed_forward",
                                         "cross_attention_hidden_size",
                                         "decoder_start_token_id",
                                         "diversity_penalty",
                                         "do_sample",
                                         "early_stopping",
                                         "encoder_no_repeat_ngram_size",
                                         "encoder_repetition_penalty",
                                         "epsilon_cutoff",
                                         "eta_cutoff",
                                         "exponential_decay_length_penalty",
                                         "finetuning_task",
                                         "forced_bos_token_id",
                                         "forced_eos_token_id",
                                         "gradient_checkpointing",
                                         "id2label",
                                         "is_decoder",
                                         "keys_to_ignore_at_inference",
                                         "label2id",
                                         "length_penalty",
                                         "max_length",
                                         "min_length",
                                         "model_type",
                                         "name_or_path",
                                         "no_repeat_ngram_size",
                                         "num_assistant_tokens",
                                         "num_assistant_tokens_schedule",
                                         "num_beam_groups",
                                         "num_beams",
                                         "num_labels",
                                         "num_return_sequences",
                                         "original_max_position_embeddings",
                                         "output_attentions",
                                         "output_hidden_states",
                                         "output_scores",
                                         "prefix",
                                         "problem_type",
                                         "remove_invalid_values",
                                         "repetition_penalty",
                                         "residual",
                                         "return_dict",
                                         "return_dict_in_generate",
                                         "sep_token_id",
                                         "suppress_tokens",
                                         "target_lookbehind",
                                         "task_specific_params",
                                         "temperature",
                                         "tf_legacy_loss",
                                         "tie_last_hidden_states",
                                         "tokenizer_class",
                                         "top_k",
                                         "top_p",
                                         "torchscript",
                                         "transformers_version",
                                         "typical_p",
                                         "use_bfloat16",
                                         "use_return_dict"};

// Those that the reader itself looks at.
constexpr std::string_view kRead[] = {
    "hidden_size",  "num_hidden_layers",   "num_attention_heads", "num_key_value_heads",
    "head_dim",     "intermediate_size",   "vocab_size",          "max_position_embeddings",
    "rms_norm_eps", "tie_word_embeddings", "rope_theta",          "rope_scaling",
    "layer_types",  "rope_parameters"};

class Reader {
 public:
  Reader(const Json& config, const std::string& where) : config_(config), where_(where) {
    if (!config_.is_object()) {
      throw UserError(
          fmt::format("expected a JSON object, given {}, in {}", json_excerpt(config_), where_),
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
      throw UserError(fmt::format("expected {}, given {}, {}in {}", fault->expected, fault->given,
                                  is_named ? "" : "for " + key + " ", where_),
                      fault->hint.empty() ? kHint : fault->hint);
    }
    if (present("head_dim") && integer("head_dim") != m.width / m.heads) {
      fail("head_dim", fmt::format("hidden_size / num_attention_heads = {}", m.width / m.heads));
    }
    check_layer_types(m.layers);
    for (const Rule& rule : kRules) {
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
    return std::ranges::count(kNeutral, key) > 0 || std::ranges::count(kRead, key) > 0 ||
           std::ranges::any_of(kRules, [&](const Rule& rule) { return key == rule.key; });
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
    throw UserError(fmt::format("expected {} as {}, given {}, in {}", expected, key, given, where_),
                    kHint);
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

  // rope_theta at the top (4), in rope_parameters (5), or in rope_scaling, which 5 takes before
  // rope_parameters where both are given. Places that contradict each other are refused: the
  // versions of `transformers` differ in which they believe.
  double rope_theta() const {
    const auto top = base_of(config_, "rope_theta");
    const auto scaling = plain_rope("rope_scaling");
    const auto parameters = plain_rope("rope_parameters");
    const Json* scaled = find("rope_scaling");
    const bool has_scaling = scaled != nullptr && !is_empty(*scaled);
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
    if (rope == nullptr || is_empty(*rope)) return std::nullopt;
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
      if (!is_factor || !is_one(value) || (is_linear && value.is_null())) {
        fail(name + "." + key, is_factor ? "1 (plain RoPE)" : "no such key of plain RoPE",
             json_excerpt(value));
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
