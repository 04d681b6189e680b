// Sizes that no model can have, refused before anything of these sizes is allocated.
#include "config/model_size.h"

#include "support.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct WrongSize {
  const char* what;  // the key of [model], and its key in config.json
  const char* hugging_face;
  void (*change)(ModelConfig&);
};

const WrongSize kWrongSizes[] = {
    {"model.layers", "num_hidden_layers", [](ModelConfig& m) { m.layers = 1000000000; }},
    {"model.layers", "num_hidden_layers", [](ModelConfig& m) { m.layers = 0; }},
    {"model.width", "hidden_size", [](ModelConfig& m) { m.width = 2000000000; }},
    {"model.width", "hidden_size", [](ModelConfig& m) { m.width = -4; }},
    {"model.heads", "num_attention_heads", [](ModelConfig& m) { m.heads = 0; }},
    {"model.heads", "num_attention_heads", [](ModelConfig& m) { m.heads = 3; }},
    {"model.kv_heads", "num_key_value_heads", [](ModelConfig& m) { m.kv_heads = 3; }},
    {"model.kv_heads", "num_key_value_heads", [](ModelConfig& m) { m.kv_heads = -1; }},
    {"model.hidden", "intermediate_size", [](ModelConfig& m) { m.hidden = 2000000000; }},
    {"model.context", "max_position_embeddings", [](ModelConfig& m) { m.context = 0; }},
    {"model.rms_norm_eps", "rms_norm_eps", [](ModelConfig& m) { m.rms_norm_eps = -1; }},
    {"model.rms_norm_eps", "rms_norm_eps", [](ModelConfig& m) { m.rms_norm_eps = NAN; }},
    {"model.rope_theta", "rope_theta", [](ModelConfig& m) { m.rope_theta = 0; }},
    {"model.rope_theta", "rope_theta", [](ModelConfig& m) { m.rope_theta = INFINITY; }},
};

TEST(ModelSize, IsAtFaultUnderTheNameThatItHasWhereItWasWritten) {
  EXPECT_FALSE(find_model_fault({}, 256, kConfigurationKeys));
  for (const WrongSize& wrong : kWrongSizes) {
    ModelConfig model;
    wrong.change(model);
    for (const auto& [keys, name] : {std::pair{&kConfigurationKeys, wrong.what},
                                     std::pair{&kHuggingFaceKeys, wrong.hugging_face}}) {
      const auto fault = find_model_fault(model, 256, *keys);
      ASSERT_TRUE(fault) << name;
      EXPECT_EQ(fault->keys.front(), name);
      EXPECT_FALSE(fault->expected.empty() || fault->given.empty()) << name;
    }
  }
  EXPECT_EQ(find_model_fault({}, int64_t{1} << 40, kHuggingFaceKeys)->keys.front(), "vocab_size");
}

using ModelSizes = ConfigFiles;

TEST_F(ModelSizes, OfAnImpossibleModelAreRefusedWithTheirLine) {
  for (const char* key : {"layers = 1000000000", "width = 1073741824", "hidden = 1073741824"}) {
    const auto error = user_error([&] { (void)load(std::string("[model]\n") + key); });
    EXPECT_THAT(error.what,
                AllOf(HasSubstr("run.toml:2"), HasSubstr(std::string(key).substr(0, 5))));
  }
}

TEST_F(ModelSizes, LeaveRoomForEveryModelThatWasTrained) {
  for (const auto& [layers, width, heads, hidden, context] :
       {std::tuple{96, 12288, 96, 49152, 2048}, std::tuple{126, 16384, 128, 53248, 131072},
        std::tuple{48, 5120, 40, 16384, 10485760}}) {
    ModelConfig model;
    model.layers = layers;
    model.width = width;
    model.heads = heads;
    model.hidden = hidden;
    model.context = context;
    EXPECT_FALSE(find_model_fault(model, 202048, kHuggingFaceKeys)) << layers;
  }
}

}  // namespace
}  // namespace wavroute
