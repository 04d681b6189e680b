// Models on disk.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "model/model_folder.h"
#include "tests/model/small_model.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

void write_model(const Decoder& model, const TemporaryFolder& folder) {
  put(folder / "config.json", model_config(model, {}).dump());
  save_parameters(model, folder / "model.safetensors");
}

// Writes model.safetensors with `change` made to the tensors of `model`.
template <typename Change>
void write_changed(const Decoder& model, const TemporaryFolder& folder, Change change) {
  put(folder / "config.json", model_config(model, {}).dump());
  NamedTensors tensors = values_of(model);
  change(tensors);
  TensorFile file;
  for (const auto& [name, tensor] : tensors) file.add(name, tensor);
  file.write(folder / "model.safetensors", {});
}

// The frequencies of plain RoPE at the head width of small_spec(), fp32.
at::Tensor frequencies(double theta) {
  return at::pow(theta, at::arange(0, 8, 2, at::kDouble).div(-8)).to(at::kFloat);
}

std::string refusal_of(const TemporaryFolder& folder) {
  return message_of<UserError>(
      [&] { static_cast<void>(load_model(folder.path(), Precision::kFp32, at::kCPU)); });
}

TEST(ModelFolder, GivesBackEverySchemeBitForBit) {
  for (const SchemeCase& c : scheme_cases()) {
    const TemporaryFolder folder;
    const auto model = scattered_model(small_spec(c), Precision::kFp32);
    write_model(*model, folder);
    const auto loaded = load_model(folder.path(), Precision::kFp32, at::kCPU);
    EXPECT_EQ(loaded->spec().scheme, c.scheme);
    EXPECT_EQ(loaded->spec().options, model->spec().options) << c.label;
    expect_equal(values_of(*loaded), values_of(*model));
    const at::Tensor ids = random_tokens(2, 9);
    EXPECT_TRUE(at::equal(logits_of(*loaded, ids), logits_of(*model, ids))) << c.label;
  }
}

TEST(ModelFolder, KeepsEverySizeAndConstant) {
  DecoderSpec spec = small_spec("prenorm");
  spec.model.tie_embeddings = true;
  spec.model.rms_norm_eps = 1e-5;
  spec.model.rope_theta = 500000.0;
  const TemporaryFolder folder;
  write_model(*fresh_model(spec, Precision::kFp32), folder);
  const DecoderSpec read = read_model_config(folder.path());
  EXPECT_EQ(read.model.layers, 4);
  EXPECT_EQ(read.model.width, 16);
  EXPECT_EQ(read.model.heads, 2);
  EXPECT_EQ(read.model.kv_heads, 1);
  EXPECT_EQ(read.model.hidden, 24);
  EXPECT_EQ(read.model.context, 9);
  EXPECT_TRUE(read.model.tie_embeddings);
  EXPECT_EQ(read.model.rms_norm_eps, 1e-5);
  EXPECT_EQ(read.model.rope_theta, 500000.0);
  EXPECT_EQ(read.vocab_size, 17);
}

TEST(ModelFolder, ConvertsNarrowFloatingPointTypes) {
  const auto model = scattered_model(small_spec("wav"), Precision::kFp32);
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kDouble}) {
    const TemporaryFolder folder;
    write_changed(*model, folder, [&](NamedTensors& tensors) {
      for (auto& [name, tensor] : tensors) tensor = tensor.to(type);
    });
    NamedTensors expected = values_of(*model);
    for (auto& [name, tensor] : expected) tensor = tensor.to(type).to(at::kFloat);
    expect_equal(values_of(*load_model(folder.path(), Precision::kFp32, at::kCPU)), expected);
  }
}

TEST(ModelFolder, RefreshesTheComputeTypeOnLoading) {
  const TemporaryFolder folder;
  const auto model = scattered_model(small_spec("prenorm"), Precision::kBf16);
  write_model(*model, folder);
  const auto loaded = load_model(folder.path(), Precision::kBf16, at::kCPU);
  const at::Tensor ids = random_tokens(2, 9);
  EXPECT_TRUE(at::equal(logits_of(*loaded, ids), logits_of(*model, ids)));
}

TEST(ModelFolder, RefusesTensorsThatAreNotTheModels) {
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  const auto refusal = [&](auto change) {
    const TemporaryFolder folder;
    write_changed(*model, folder, change);
    return refusal_of(folder);
  };
  EXPECT_THAT(refusal([&](NamedTensors& t) { t.erase(name); }), HasSubstr(name));
  EXPECT_THAT(refusal([&](NamedTensors& t) { t["model.layers.1.extra"] = at::ones({2}); }),
              HasSubstr("model.layers.1.extra"));
  EXPECT_THAT(refusal([&](NamedTensors& t) { t[name] = t[name].t().contiguous(); }),
              HasSubstr(name));
  EXPECT_THAT(refusal([&](NamedTensors& t) { t[name] = t[name].flatten(); }), HasSubstr(name));
  EXPECT_THAT(refusal([&](NamedTensors& t) { t[name] = t[name].to(at::kLong); }),
              AllOf(HasSubstr(name), HasSubstr("floating-point")));
  // The biases of another scheme's routers are not dropped silently.
  EXPECT_THAT(refusal([&](NamedTensors& t) { t["model.output_attn_res_bias"] = at::ones({2}); }),
              AllOf(HasSubstr("prenorm"), HasSubstr("model.output_attn_res_bias")));
}

TEST(ModelFolder, IgnoresWhatALlamaMayCarryBesides) {
  DecoderSpec spec = small_spec("prenorm");
  spec.model.tie_embeddings = true;
  const auto model = scattered_model(spec, Precision::kFp32);
  const TemporaryFolder folder;
  write_changed(*model, folder, [&](NamedTensors& t) {
    t["model.layers.0.self_attn.rotary_emb.inv_freq"] = frequencies(1e4);
    t["model.layers.1.self_attn.rotary_emb.inv_freq"] = frequencies(1e4).to(at::kBFloat16);
    t["lm_head.weight"] = t["model.embed_tokens.weight"].clone();
  });
  expect_equal(values_of(*load_model(folder.path(), Precision::kFp32, at::kCPU)),
               values_of(*model));
}

TEST(ModelFolder, RefusesWhatALlamaCarriesBesidesWhereItSaysAnotherFunction) {
  DecoderSpec spec = small_spec("prenorm");
  spec.model.tie_embeddings = true;
  const auto model = scattered_model(spec, Precision::kFp32);
  const auto refusal = [&](const std::string& name, const at::Tensor& tensor) {
    const TemporaryFolder folder;
    write_changed(*model, folder, [&](NamedTensors& t) { t[name] = tensor; });
    return refusal_of(folder);
  };
  const std::string frequency = "model.layers.0.self_attn.rotary_emb.inv_freq";
  EXPECT_THAT(refusal(frequency, frequencies(5e5)), HasSubstr(frequency));
  EXPECT_THAT(refusal(frequency, at::ones({3})), HasSubstr(frequency));
  EXPECT_THAT(refusal("lm_head.weight", at::ones({spec.vocab_size, spec.model.width})),
              AllOf(HasSubstr("lm_head.weight"), HasSubstr("tie_word_embeddings")));
}

TEST(ModelFolder, NamesAllTensorsThatTheModelHasNot) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  const TemporaryFolder folder;
  write_changed(*model, folder, [&](NamedTensors& t) {
    for (const char* name : {"q_proj", "k_proj"}) {
      t[std::string("model.layers.0.self_attn.") + name + ".bias"] = at::zeros({16});
    }
    t["model.layers.4.input_layernorm.weight"] = at::ones({16});  // the model has layers 0 to 3
  });
  EXPECT_THAT(refusal_of(folder),
              AllOf(HasSubstr("0.self_attn.q_proj.bias"), HasSubstr("0.self_attn.k_proj.bias"),
                    HasSubstr("model.layers.4.input_layernorm.weight")));
}

TEST(ModelFolder, HoldsSizesAgainstTheHeaderBeforeAnythingIsMade) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  const TemporaryFolder folder;
  write_model(*model, folder);
  const auto refusal = [&](const char* key, int64_t value) {
    Json config = model_config(*model, {});
    config.erase("head_dim");
    config[key] = value;
    put(folder / "config.json", config.dump());
    const DecoderSpec spec = read_model_config(folder.path());
    return message_of<UserError>([&] { check_weights(spec, folder.path()); });
  };
  EXPECT_THAT(refusal("num_hidden_layers", 4000), HasSubstr("model.layers.3999."));
  EXPECT_THAT(refusal("hidden_size", 1 << 20), HasSubstr("model.embed_tokens.weight"));
  EXPECT_THAT(refusal("vocab_size", 1 << 30), HasSubstr("model.embed_tokens.weight"));
}

TEST(ModelFolder, RefusesAVocabularyThatIsNotTheTensors) {
  const auto model = scattered_model(small_spec("prenorm"), Precision::kFp32);
  const TemporaryFolder folder;
  write_model(*model, folder);
  Json config = model_config(*model, {});
  config["vocab_size"] = 18;
  put(folder / "config.json", config.dump());
  EXPECT_THAT(refusal_of(folder), HasSubstr("model.embed_tokens.weight"));
}

TEST(ModelFolder, RefusesShards) {
  const auto model = fresh_model(small_spec("prenorm"), Precision::kFp32);
  const TemporaryFolder folder;
  write_model(*model, folder);
  put(folder / "model.safetensors.index.json", "{}");
  EXPECT_THAT(refusal_of(folder), HasSubstr("shards"));
}

TEST(ModelFolder, RefusesWeightsThatAnotherFileOrLayoutChanges) {
  const auto model = fresh_model(small_spec("prenorm"), Precision::kFp32);
  const TemporaryFolder folder;
  write_model(*model, folder);
  put(folder / "adapter_config.json", "{}");
  EXPECT_THAT(refusal_of(folder), HasSubstr("adapter_config.json"));
  for (const char* format : {"tf", "flax"}) {
    const TemporaryFolder other;
    write_model(*model, other);
    TensorFile file;
    file.add(model->parameters(), value_buffers(model->parameters()), "");
    file.write(other / "model.safetensors", {{"format", format}});
    EXPECT_THAT(refusal_of(other), HasSubstr(format));
  }
}

TEST(ModelConfig, CallsAModelALlamaWhereItIsOne) {
  for (const SchemeInfo& scheme : residual_schemes()) {
    const auto model = fresh_model(small_spec(scheme.name));
    const Json config = model_config(*model, {});
    const bool llama = scheme.name == "prenorm" || scheme.name == "layerdrop";
    EXPECT_EQ(config.at("model_type"), llama ? "llama" : "wavroute") << scheme.name;
    EXPECT_EQ(config.at("residual").at("scheme"), scheme.name);
    for (const OptionSpec& option : scheme.options) {
      EXPECT_TRUE(config.at("residual").contains(option.name)) << scheme.name << option.name;
    }
  }
}

TEST(ModelConfig, SaysWhetherTheGatesAreFrozen) {
  const auto model = fresh_model(small_spec("gated", {{"freeze", 0.1}}));
  EXPECT_EQ(model_config(*model, {9, 100}).at("residual").at("frozen"), true);
  EXPECT_EQ(model_config(*model, {10, 100}).at("residual").at("frozen"), false);
}

TEST(ModelConfig, RefusesFunctionsThatThisDecoderDoesNotCompute) {
  const auto model = fresh_model(small_spec("prenorm"));
  const auto refusal = [&](const Json& changes) {
    Json config = model_config(*model, {});
    config.merge_patch(changes);  // null removes a field
    const TemporaryFolder folder;
    put(folder / "config.json", config.dump());
    return message_of<UserError>([&] { static_cast<void>(read_model_config(folder.path())); });
  };
  EXPECT_THAT(refusal({{"model_type", "mistral"}}), HasSubstr("model_type"));
  EXPECT_THAT(refusal({{"hidden_act", "gelu"}}), HasSubstr("hidden_act"));
  EXPECT_THAT(refusal({{"mlp_bias", true}}), HasSubstr("mlp_bias"));
  EXPECT_THAT(refusal({{"head_dim", 3}}), HasSubstr("head_dim"));
  EXPECT_THAT(refusal({{"rope_scaling", {{"factor", 2.0}}}}), HasSubstr("rope_scaling"));
  EXPECT_THAT(refusal({{"rope_parameters", {{"rope_type", "yarn"}}}}), HasSubstr("factor"));
  EXPECT_THAT(refusal({{"rope_parameters", {{"rope_type", "longrope"}}}}), HasSubstr("rope_type"));
  EXPECT_THAT(refusal({{"hidden_size", nullptr}}), HasSubstr("hidden_size"));
  EXPECT_THAT(refusal({{"hidden_size", "16"}}), HasSubstr("hidden_size"));
  EXPECT_THAT(refusal({{"model_type", "wavroute"}, {"residual", nullptr}}), HasSubstr("residual"));
  EXPECT_THAT(refusal({{"residual", {{"scheme", 1}}}}), HasSubstr("scheme"));
}

TEST(ModelConfig, ReadsItsOwnObjectWhollyOrNotAtAll) {
  const auto model = fresh_model(small_spec("wav"));
  const auto refusal = [&](const Json& changes) {
    Json config = model_config(*model, {});
    config.merge_patch(changes);
    const TemporaryFolder folder;
    put(folder / "config.json", config.dump());
    return message_of<UserError>([&] { static_cast<void>(read_model_config(folder.path())); });
  };
  EXPECT_EQ(model_config(*model, {}).at("residual").at("format"), 1);
  EXPECT_THAT(refusal({{"residual", {{"format", 2}}}}),
              AllOf(HasSubstr("residual.format"), HasSubstr("config.json")));
  EXPECT_THAT(refusal({{"residual", {{"zoom", true}}}}),
              AllOf(HasSubstr("zoom"), HasSubstr("wav"), HasSubstr("config.json")));
  EXPECT_THAT(refusal({{"residual", {{"blocks", 3.5}}}}),
              AllOf(HasSubstr("blocks"), HasSubstr("config.json")));
  EXPECT_THAT(refusal({{"residual", {{"blocks", 1000000000}}}}), HasSubstr("blocks"));
  EXPECT_THAT(refusal({{"residual", {{"scheme", "wavy"}}}}), HasSubstr("wavy"));
  EXPECT_THAT(refusal({{"model_type", "llama"}}), AllOf(HasSubstr("model_type"), HasSubstr("wav")));
}

TEST(ModelConfig, ReadsAnObjectWithoutAFormatAsTheFirst) {
  const auto model = fresh_model(small_spec("wav"));
  Json config = model_config(*model, {});
  config["residual"].erase("format");
  const TemporaryFolder folder;
  put(folder / "config.json", config.dump());
  EXPECT_EQ(read_model_config(folder.path()).options, model->spec().options);
}

TEST(ModelConfig, TellsWhichKeysAreNotKnown) {
  const auto model = fresh_model(small_spec("prenorm"));
  Json config = model_config(*model, {});
  std::vector<std::string> ignored;
  const TemporaryFolder folder;
  put(folder / "config.json", config.dump());
  static_cast<void>(read_model_config(folder.path(), &ignored));
  EXPECT_THAT(ignored, ::testing::IsEmpty());
  config["zoom"] = 3;
  put(folder / "config.json", config.dump());
  static_cast<void>(read_model_config(folder.path(), &ignored));
  EXPECT_THAT(ignored, ::testing::ElementsAre("zoom"));
}

TEST(ModelConfig, TakesEitherSpellingOfTheRotaryBase) {
  const auto model = fresh_model(small_spec("prenorm"));
  const auto theta = [&](const Json& changes) {
    Json config = model_config(*model, {});
    config.merge_patch(changes);
    const TemporaryFolder folder;
    put(folder / "config.json", config.dump());
    return read_model_config(folder.path()).model.rope_theta;
  };
  EXPECT_EQ(theta({{"rope_parameters", nullptr}, {"rope_theta", 5e5}}), 5e5);
  EXPECT_EQ(theta({{"rope_parameters", {{"rope_theta", 5e5}}}, {"rope_theta", nullptr}}), 5e5);
  EXPECT_EQ(theta({{"rope_parameters", nullptr}, {"rope_theta", nullptr}}), 1e4);
}

TEST(ModelConfig, MustBeAJsonObject) {
  for (const char* text : {"", "[]", "{", "3"}) {
    const TemporaryFolder folder;
    put(folder / "config.json", text);
    EXPECT_THAT(message_of<UserError>([&] { static_cast<void>(read_model_config(folder.path())); }),
                HasSubstr("config.json"));
  }
}

}  // namespace
}  // namespace wavroute
