#include "config/llama_keys.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/json_text.h"

namespace wavroute {

using Json = nlohmann::json;

bool is_empty_or_null(const Json& v) { return v.is_null() || (v.is_structured() && v.empty()); }

bool is_one_or_null(const Json& v) {
  return v.is_null() || (v.is_number() && v.get<double>() == 1.0);
}

bool is_word_of(const Json& v, std::initializer_list<std::string_view> words) {
  return v.is_string() && std::ranges::count(words, v.get_ref<const std::string&>()) > 0;
}

namespace {

bool is_null(const Json& v) { return v.is_null(); }
bool is_flag(const Json& v) { return v.is_boolean(); }
bool is_true(const Json& v) { return v.is_boolean() && v.get<bool>(); }
bool is_false(const Json& v) { return v.is_boolean() && !v.get<bool>(); }
bool is_off(const Json& v) { return v.is_null() || is_false(v); }

bool is_count(const Json& v) {
  const auto value = json_integer(v);
  return v.is_null() || (value && *value >= 1);
}

bool is_share(const Json& v) {
  return v.is_number() && v.get<double>() >= 0 && v.get<double>() <= 1;
}
bool is_share_or_null(const Json& v) { return v.is_null() || is_share(v); }

bool is_token(const Json& v) { return v.is_null() || json_integer(v).has_value(); }
bool is_token_or_list(const Json& v) {
  return is_token(v) || (v.is_array() && std::all_of(v.begin(), v.end(), is_token));
}

bool is_silu(const Json& v) { return is_word_of(v, {"silu", "swish"}); }

// The type of the weights in the file: they are converted.
bool is_weight_type(const Json& v) {
  return v.is_null() || is_word_of(v, {"float32", "float16", "bfloat16", "float64", "auto", "float",
                                       "half", "double", "torch.float32", "torch.float16",
                                       "torch.bfloat16", "torch.float64"});
}

bool names_a_language_model(const Json& v) {
  return is_empty_or_null(v) || (v.is_array() && std::ranges::all_of(v, [](const Json& name) {
                                   return is_word_of(name, {"LlamaForCausalLM", "LLaMAForCausalLM",
                                                            "WavrouteForCausalLM"});
                                 }));
}

constexpr LlamaRule kRules[] = {
    {"architectures", names_a_language_model, "[\"LlamaForCausalLM\"]"},
    {"hidden_act", is_silu, "\"silu\""},
    {"mlp_bias", is_false, "false"},
    {"partial_rotary_factor", is_one_or_null, "1"},
    {"quantization_config", is_null, "null (plain weights)"},
    {"compression_config", is_null, "null (plain weights)"},
    {"sliding_window", is_off, "null (attention to all earlier tokens)"},
    {"use_sliding_window", is_off, "false"},
    {"attention_chunk_size", is_null, "null"},
    {"is_causal", is_true, "true"},
    {"is_encoder_decoder", is_false, "false"},
    {"add_cross_attention", is_off, "false"},
    {"tie_encoder_decoder", is_off, "false"},
    {"pruned_heads", is_empty_or_null, "no pruned heads"},
    {"per_layer_config", is_empty_or_null, "one configuration for all layers"},
    {"kv_sharing_modes", is_empty_or_null, "null"},
    {"fusion_config", is_empty_or_null, "null"},
    {"distributed_config", is_empty_or_null, "null"},
    {"transformers_weights", is_null, "null (the weights lie in model.safetensors)"},
    // Objects that `transformers` reads as the model's configuration instead of the outer one.
    {"text_config", is_null, "null"},
    {"text_encoder", is_null, "null"},
    {"decoder", is_null, "null"},
    {"generator", is_null, "null"},
    // No effect on the logits, but values are checked.
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

}  // namespace

std::span<const LlamaRule> llama_rules() { return kRules; }

bool is_neutral_llama_key(std::string_view key) { return std::ranges::count(kNeutral, key) > 0; }

}  // namespace wavroute
