#include "config/presets.h"

#include "config/print.h"
#include "support.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using Presets = ConfigFiles;

TEST_F(Presets, AllLoadForTrainingAndForComparing) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) {
    names.emplace_back(preset.name);
    for (const ConfigUse use : {ConfigUse::kTrain, ConfigUse::kCompare}) {
      const auto loaded = load_config(names.back(), {}, catalog_, use);
      EXPECT_EQ(loaded.config.name, preset.name);
      const std::string& train = loaded.config.data.train;  // what is prepared lies in corpora/
      EXPECT_TRUE(train == "torch-source" || train.find("/corpora/") != std::string::npos) << train;
    }
    EXPECT_THAT(preset.summary(), Not(IsEmpty())) << preset.name;
  }
  EXPECT_THAT(names,
              ::testing::IsSupersetOf({"base", "demo", "depth", "schemes", "tiny", "bench",
                                       "bench-512", "paper-tinystories", "paper-text8", "gpt2-124m",
                                       "gpt2-350m", "gpt2-774m", "gpt2-1558m"}));
}

TEST_F(Presets, BaseSpellsOutTheDefaultsAndNothingElse) {
  Config defaults;
  defaults.name = "base";
  const auto loaded = load_config("base", {}, catalog_, ConfigUse::kTrain);
  EXPECT_THAT(changed_keys(defaults, loaded.config), IsEmpty());
  for (const auto& [key, origin] : loaded.origins) {
    if (key == "name") continue;
    EXPECT_THAT(origin, HasSubstr("preset base.toml:")) << key;
  }
}

TEST_F(Presets, ChainOfPresetsKeepsTheOriginOfEachValue) {
  const auto loaded = load_config("bench-512.toml", {}, catalog_, ConfigUse::kTrain);
  EXPECT_EQ(loaded.config.model.width, 512);
  EXPECT_EQ(loaded.config.model.layers, 48);
  EXPECT_EQ(loaded.config.train.batch, 4);
  EXPECT_THAT(loaded.origins.at("model.width"), HasSubstr("preset bench-512.toml:"));
  EXPECT_THAT(loaded.origins.at("model.layers"), HasSubstr("preset bench.toml:"));
  EXPECT_THAT(loaded.origins.at("train.seed"), HasSubstr("preset base.toml:"));
}

TEST_F(Presets, TrainUnderEverySchemeBySet) {
  for (const Preset& preset : presets()) {
    for (const SchemeOptions& scheme : catalog_) {
      const std::vector<std::string> sets = {"residual.scheme=" + scheme.scheme};
      const auto loaded = load_config(std::string(preset.name), sets, catalog_, ConfigUse::kTrain);
      EXPECT_EQ(loaded.config.residual.scheme, scheme.scheme);
    }
  }
}

TEST_F(Presets, SchemesListsTheWholeCatalog) {
  const auto loaded = load_config("schemes", {}, catalog_, ConfigUse::kCompare);
  std::vector<std::string> all;
  for (const SchemeOptions& scheme : catalog_) all.push_back(scheme.scheme);
  EXPECT_THAT(loaded.config.compare.schemes, ::testing::UnorderedElementsAreArray(all));
}

TEST_F(Presets, FileOfTheSameNameGoesFirst) {
  const auto path = write("demo", "[model]\nlayers = 2\n");
  EXPECT_EQ(load_config(path, {}, catalog_, ConfigUse::kTrain).config.model.layers, 2);
}

}  // namespace
}  // namespace wavroute
