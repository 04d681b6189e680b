// config.json of a foreign Llama: every key has its effect, has none, or is refused by name.
#include "config/llama_config.h"

#include <gmock/gmock.h>
#include <cmath>

#include <nlohmann/json.hpp>

#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

Json plain() {
  return {{"model_type", "llama"},      {"vocab_size", 256},      {"hidden_size", 32},
          {"intermediate_size", 48},    {"num_hidden_layers", 2}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2},   {"rms_norm_eps", 1e-5},   {"max_position_embeddings", 64},
          {"tie_word_embeddings", true}};
}

Json with(Json config, const std::string& key, const Json& value) {
  config[key] = value;
  return config;
}

LlamaConfig read(const Json& config) { return read_llama_config(config, "config.json"); }

std::string refusal(const Json& config) {
  try {
    static_cast<void>(read(config));
  } catch (const UserError& error) {
    EXPECT_FALSE(error.hint().empty()) << error.what();
    return error.what();
  }
  return "it was read";
}

TEST(LlamaConfig, HasTheSizesOfTheFile) {
  const LlamaConfig config = read(plain());
  EXPECT_EQ(config.model.width, 32);
  EXPECT_EQ(config.model.layers, 2);
  EXPECT_EQ(config.model.heads, 4);
  EXPECT_EQ(config.model.kv_heads, 2);
  EXPECT_EQ(config.model.hidden, 48);
  EXPECT_EQ(config.model.context, 64);
  EXPECT_EQ(config.model.rms_norm_eps, 1e-5);
  EXPECT_TRUE(config.model.tie_embeddings);
  EXPECT_EQ(config.vocab_size, 256);
  EXPECT_THAT(config.ignored, IsEmpty());
}

TEST(LlamaConfig, RefusesHeadsWhoseWidthsHaveNoSum) {
  Json config = with(plain(), "hidden_size", int64_t{1} << 62);
  config["num_attention_heads"] = int64_t{1} << 40;
  config["head_dim"] = int64_t{1} << 40;
  EXPECT_THAT(refusal(config), HasSubstr("hidden_size"));
}

TEST(LlamaConfig, TakesTheDefaultsOfTransformersForWhatIsNotThere) {
  Json config = plain();
  for (const char* key :
       {"num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"}) {
    config.erase(key);
  }
  const LlamaConfig read_config = read(config);
  EXPECT_EQ(read_config.model.kv_heads, 4);
  EXPECT_EQ(read_config.model.rms_norm_eps, 1e-6);
  EXPECT_EQ(read_config.model.context, 2048);
  EXPECT_EQ(read_config.model.rope_theta, 10000.0);
  EXPECT_FALSE(read_config.model.tie_embeddings);
}

TEST(LlamaConfig, RefusesByNameWhatThisDecoderDoesNotCompute) {
  const std::pair<const char*, Json> others[] = {
      {"hidden_act", "gelu"},
      {"attention_bias", nullptr},
      {"mlp_bias", true},
      {"partial_rotary_factor", 0.5},
      {"sliding_window", 4096},
      {"use_sliding_window", true},
      {"attention_chunk_size", 8},
      {"layer_types", {"full_attention", "sliding_attention"}},
      {"layer_types", {"full_attention"}},
      {"quantization_config", {{"bits", 4}}},
      {"is_causal", false},
      {"is_encoder_decoder", true},
      {"add_cross_attention", true},
      {"pruned_heads", {{"0", {1}}}},
      {"per_layer_config", {{"0", {{"head_dim", 4}}}}},
      {"text_config", Json::object()},
      {"transformers_weights", "other.safetensors"},
      {"torch_dtype", "int8"},
      {"architectures", {"LlamaForSequenceClassification"}},
  };
  for (const auto& [key, value] : others) {
    EXPECT_THAT(refusal(with(plain(), key, value)), AllOf(HasSubstr(key), HasSubstr("config.json")))
        << value;
  }
}

TEST(LlamaConfig, RefusesByNameValuesOutsideTheirMeaning) {
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "intermediate_size", "vocab_size", "max_position_embeddings", "head_dim"}) {
    for (const Json& value : {Json(0), Json(-1), Json(1.5), Json("32"), Json(true),
                              Json(1ULL << 63), Json(int64_t{1} << 62), Json::array()}) {
      EXPECT_THAT(refusal(with(plain(), key, value)), HasSubstr(key)) << value;
    }
  }
  for (const char* key : {"rms_norm_eps", "rope_theta"}) {
    for (const Json& value : {Json(-1), Json("1e-5"), Json(nullptr), Json(true), Json(1e300)}) {
      EXPECT_THAT(refusal(with(plain(), key, value)), HasSubstr(key)) << value;
    }
  }
  EXPECT_THAT(refusal(with(plain(), "rope_theta", 0)), HasSubstr("rope_theta"));
  for (const char* key : {"tie_word_embeddings", "use_cache"}) {
    EXPECT_THAT(refusal(with(plain(), key, "yes")), HasSubstr(key));
  }
  for (const char* key : {"attention_dropout", "initializer_range", "pretraining_tp"}) {
    EXPECT_THAT(refusal(with(plain(), key, -1)), HasSubstr(key));
    EXPECT_THAT(refusal(with(plain(), key, "no number")), HasSubstr(key));
  }
  EXPECT_THAT(refusal(with(plain(), "num_attention_heads", 5)), HasSubstr("num_attention_heads"));
  EXPECT_THAT(refusal(with(plain(), "num_key_value_heads", 3)), HasSubstr("num_key_value_heads"));
  EXPECT_THAT(refusal(Json::array()), HasSubstr("config.json"));
}

TEST(LlamaConfig, SaysNothingOfValuesThatLeaveTheFunctionAsItIs) {
  const std::pair<const char*, Json> neutral[] = {
      {"hidden_act", "swish"},
      {"head_dim", 8},
      {"head_dim", nullptr},
      {"num_key_value_heads", nullptr},
      {"partial_rotary_factor", 1.0},
      {"sliding_window", nullptr},
      {"layer_types", {"full_attention", "full_attention"}},
      {"quantization_config", nullptr},
      {"pretraining_tp", 2},
      {"attention_dropout", 0.1},
      {"initializer_range", 0.5},
      {"torch_dtype", "bfloat16"},
      {"dtype", "float16"},
      {"architectures", nullptr},
      {"architectures", {"LlamaForCausalLM"}},
      {"eos_token_id", {1, 2}},
      {"temperature", 0.6},
      {"id2label", {{"0", "LABEL_0"}}},
      {"transformers_version", "4.28.0"},
      {"rope_scaling", nullptr},
      {"rope_scaling", {{"rope_type", "default"}}},
      {"rope_scaling", {{"type", "default"}, {"factor", 1.0}}},
      {"rope_scaling", {{"type", "linear"}, {"factor", 1.0}}},
      {"rope_parameters", Json::object()},
  };
  for (const auto& [key, value] : neutral) {
    const LlamaConfig config = read(with(plain(), key, value));
    EXPECT_THAT(config.ignored, IsEmpty()) << key;
    EXPECT_EQ(config.model.rope_theta, 10000.0) << key << value;
  }
}

TEST(LlamaConfig, NamesTheKeysThatNobodyKnows) {
  const Json config = with(with(plain(), "zoom", 3), "clip_qkv", 8);
  EXPECT_THAT(read(config).ignored, ElementsAre("clip_qkv", "zoom"));
}

TEST(LlamaConfig, TakesTheRotaryBaseFromEveryPlaceThatHadIt) {
  EXPECT_EQ(read(with(plain(), "rope_theta", 500)).model.rope_theta, 500);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const Json rope = {{"rope_type", "default"}, {"rope_theta", 5e5}};
    EXPECT_EQ(read(with(plain(), key, rope)).model.rope_theta, 5e5) << key;
  }
}

TEST(LlamaConfig, RefusesPlacesOfTheRotaryBaseThatContradictEachOther) {
  const Json parameters = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  const Json base = with(plain(), "rope_parameters", parameters);
  EXPECT_EQ(read(with(base, "rope_theta", 5e5)).model.rope_theta, 5e5);
  EXPECT_THAT(refusal(with(base, "rope_theta", 1e4)), HasSubstr("rope_theta"));
  // Version 5 takes rope_scaling in place of rope_parameters, with the default base.
  EXPECT_THAT(refusal(with(base, "rope_scaling", {{"type", "default"}})),
              HasSubstr("rope_parameters.rope_theta"));
}

TEST(LlamaConfig, RefusesEveryOtherKindOfRopeByName) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    for (const char* type :
         {"dynamic", "longrope", "llama3", "su", "mrope", "proportional", "axial"}) {
      for (const char* spelling : {"type", "rope_type"}) {
        const Json rope = {{spelling, type}, {"factor", 2.0}};
        EXPECT_THAT(refusal(with(plain(), key, rope)), HasSubstr(key)) << rope;
      }
    }
    const Json others[] = {{{"factor", 2.0}},
                           {{"rope_type", "linear"}},
                           {{"rope_type", "linear"}, {"factor", nullptr}},
                           {{"rope_type", "linear"}, {"factor", 2}, {"beta_fast", 32}},
                           {{"rope_type", "yarn"}, {"factor", nullptr}},
                           {{"rope_type", "yarn"}, {"factor", 2}, {"beta_fast", "32"}},
                           {{"rope_type", "yarn"}, {"factor", 2}, {"truncate", 1}},
                           {{"rope_type", "yarn"}, {"factor", 2}, {"low_freq_factor", 1}},
                           {{"rope_type", "default"}, {"type", "yarn"}},
                           {{"rope_type", 3}},
                           {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}},
                           {{"rope_type", "default"}, {"rope_theta", 0}},
                           {{"rope_type", "default"}, {"rope_theta", nullptr}},
                           {{"rope_type", "default"}, {"mrope_section", {1, 2}}},
                           {{"full_attention", {{"rope_type", "default"}}}}};
    for (const Json& rope : others) {
      EXPECT_THAT(refusal(with(plain(), key, rope)), HasSubstr(key)) << rope;
    }
    EXPECT_THAT(refusal(with(plain(), key, "default")), HasSubstr(key));
    EXPECT_THAT(refusal(with(plain(), key, {{"rope_type", "linear"}, {"factor", 0.5}})),
                HasSubstr("factor of at least 1"));
  }
}

TEST(LlamaConfig, ReadsScaledRopeFromBothPlaces) {
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 16}};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const RopeScaling s = read(with(plain(), key, llama3)).model.rope_scaling;
    EXPECT_EQ(s.rope_type, RopeType::kLlama3) << key;
    EXPECT_EQ(s.factor, 8.0);
    EXPECT_EQ(s.original_max_position_embeddings, 16);
  }
  // Without its own, the original context is that of the model, or the one at the top.
  const Json yarn = {{"type", "yarn"}, {"factor", 4}};
  const Json config = with(plain(), "rope_scaling", yarn);
  EXPECT_EQ(read(config).model.rope_scaling.original_max_position_embeddings,
            read(config).model.context);
  EXPECT_EQ(read(with(config, "original_max_position_embeddings", 7))
                .model.rope_scaling.original_max_position_embeddings,
            7);
  // What is written is read as the same.
  const LlamaConfig whole = read(with(config, "attention_bias", true));
  const LlamaConfig again = read(llama_config_to_json(whole.model, whole.vocab_size));
  EXPECT_TRUE(again.model.attention_bias);
  EXPECT_EQ(again.model.rope_scaling.factor, 4.0);
  EXPECT_EQ(again.model.rope_scaling.attention_factor, 0.1 * std::log(4.0) + 1);
}

TEST(LlamaConfig, KeepsAHeadsWidthOnlyWhereItIsAnother) {
  EXPECT_EQ(read(with(plain(), "head_dim", 8)).model.head_dim, 0);
  EXPECT_EQ(read(with(plain(), "head_dim", 16)).model.head_dim, 16);
  EXPECT_EQ(read(with(plain(), "head_dim", 16)).model.head_width(), 16);
}

}  // namespace
}  // namespace wavroute
