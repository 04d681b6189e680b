#include "config/print.h"

#include <bit>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/philox.h"
#include "config/literal.h"
#include "support.h"

namespace wavroute {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Print = ConfigFiles;

constexpr const char* kRich = R"(
name = "rich"
[model]
rms_norm_eps = 1.0000000000000002e-6
output_init = 0.010000000000000002
rope_scaling = {rope_type = "yarn", factor = 4, attention_factor = 1.25, truncate = false}
tie_embeddings = true
[residual]
scheme = "wav"
blocks = "auto"
details = ["split"]
p = 0.30000000000000004
windows = [1, 3]
[data]
train = "some text.txt"
[optimizer]
betas = [0.1, 0.9999999999999999]
[sample]
prompt = "say \"hi\"\n\tand \\ ü \u0007\u007f"
[compare]
schemes = ["layerdrop", "gated", "wav"]
depths = [2, 4]
seeds = [9007199254740993]
[[compare.variant]]
label = "wav = \"odd\""
model.rope_scaling = {rope_type = "linear", factor = 2.5}
residual.partial_details = false
optimizer.lr = 3e-4
data.valid = "v.txt"
)";

TEST_F(Print, TomlLoadsBackToAnEqualConfigFromAnyFolder) {
  const Config config = compare(kRich).config;
  const auto path = write("elsewhere/config.toml", to_toml(config));
  const Config again = load_config(path, {}, catalog_, ConfigUse::kCompare).config;
  EXPECT_THAT(changed_keys(config, again), IsEmpty());
  EXPECT_EQ(again.name, "rich");
  EXPECT_EQ(again.model.rms_norm_eps, 1.0000000000000002e-6);
  EXPECT_EQ(again.model.output_init, 0.010000000000000002);
  EXPECT_EQ(again.model.rope_scaling, config.model.rope_scaling);
  EXPECT_EQ(again.model.rope_scaling.factor, 4.0);
  EXPECT_EQ(again.model.rope_scaling.attention_factor, 1.25);
  EXPECT_FALSE(again.model.rope_scaling.truncate);
  EXPECT_THAT(again.compare.variants[0].overrides,
              ::testing::Contains("model.rope_scaling={rope_type = \"linear\", factor = 2.5}"));
  EXPECT_EQ(again.sample.prompt, "say \"hi\"\n\tand \\ \xc3\xbc \x07\x7f");
  EXPECT_EQ(again.residual.options, config.residual.options);
  EXPECT_THAT(again.compare.seeds, ElementsAre(9007199254740993));
  EXPECT_EQ(again.data.train, (folder_ / "some text.txt").string());
  ASSERT_EQ(again.compare.variants.size(), 1U);
  EXPECT_EQ(again.compare.variants[0].label, "wav = \"odd\"");
  EXPECT_EQ(again.compare.variants[0].overrides, config.compare.variants[0].overrides);
  EXPECT_EQ(to_toml(again), to_toml(config));
}

TEST_F(Print, TomlNamesEveryKeyItself) {
  const auto loaded = load(to_toml(load("").config));
  for (const auto& [key, origin] : loaded.origins) {
    EXPECT_THAT(origin, HasSubstr("run.toml:")) << key;
  }
}

TEST(Literal, DoublesReadBackToTheSameBits) {
  const Philox random(1, "test");
  for (uint64_t i = 0; i < 2000; ++i) {
    const auto words = random.bits(i);
    const double value = std::bit_cast<double>((uint64_t{words[0]} << 32) | words[1]);
    if (!std::isfinite(value)) continue;
    const Node node = parse_value(literal(value));
    const double* read = std::get_if<double>(&node.value);  // a float, never an integer
    ASSERT_NE(read, nullptr) << literal(value);
    EXPECT_EQ(std::bit_cast<uint64_t>(*read), std::bit_cast<uint64_t>(value)) << literal(value);
  }
  for (const double value : {0.0, -0.0, 1.0, 1e22, 1e15, 5e-324, 1e-8, 0.1}) {
    const Node node = parse_value(literal(value));
    EXPECT_EQ(std::bit_cast<uint64_t>(std::get<double>(node.value)),
              std::bit_cast<uint64_t>(value));
  }
}

TEST(Literal, StringsOfEveryAsciiByteReadBack) {
  std::string text;
  for (char c = 1; c < 127; ++c) text += c;
  text += '\x7f';
  text += "\xe2\x82\xac";
  EXPECT_EQ(*parse_value(literal(text)).string(), text);
}

TEST_F(Print, SettingsButTablesAreJsonValues) {
  const Config config = compare(kRich).config;
  for (const Setting& setting : settings(config)) {
    if (setting.key == "rope_scaling") continue;
    EXPECT_TRUE(nlohmann::json::accept(setting.value)) << setting.key << " = " << setting.value;
  }
}

TEST_F(Print, ChangedKeysNamesExactlyWhatDiffers) {
  const Config a = load("[residual]\nblocks = 6\n").config;
  Config b = a;
  EXPECT_THAT(changed_keys(a, b), IsEmpty());
  b.optimizer.lr = std::nextafter(b.optimizer.lr, 1.0);
  b.compare.seeds = {1};
  b.residual.options.erase("blocks");
  b.residual.options["partial_details"] = true;
  b.name = "b";
  const auto expected = ::testing::UnorderedElementsAre(
      "name", "residual.blocks", "residual.partial_details", "optimizer.lr", "compare.seeds");
  EXPECT_THAT(changed_keys(a, b), expected);
  EXPECT_THAT(changed_keys(b, a), expected);
}

TEST_F(Print, ChangedKeysSeesEveryField) {
  const Config a = load("").config;
  for (const Field& field : fields()) {
    Config b = a;
    if (field.choices.size() == 1) continue;  // no other value
    std::visit(
        [&](auto value) {
          using T = std::remove_pointer_t<decltype(value)>;
          if constexpr (std::is_same_v<T, ChoiceSlot>) {
            value.choose(field.choices[value.word() == field.choices[0] ? 1 : 0]);
          } else if constexpr (std::is_arithmetic_v<T>) {
            *value = static_cast<T>(*value == T{0});
          } else if constexpr (std::is_same_v<T, std::string>) {
            *value += "x";
          } else if constexpr (std::is_same_v<T, std::optional<double>>) {
            *value = 0.5;
          } else if constexpr (std::is_same_v<T, std::optional<int64_t>>) {
            *value = 5;
          } else if constexpr (std::is_same_v<T, RopeScaling>) {
            value->rope_type = RopeType::kLinear;
            value->factor = 2.0;
          } else {
            value->emplace_back();
          }
        },
        field.slot(b));
    EXPECT_THAT(changed_keys(a, b), ElementsAre(dotted(field.section, field.key)));
  }
}

TEST_F(Print, EveryWordThatAKeyTakesIsWrittenAsItWasRead) {
  int words = 0;
  for (const Field& field : fields()) {
    for (const std::string& word : field.choices) {
      Config config = load("", {dotted(field.section, field.key) + "=" + word}).config;
      EXPECT_EQ(std::get<ChoiceSlot>(field.slot(config)).word(), word) << field.key;
      EXPECT_THAT(to_toml(config), HasSubstr("\n" + field.key + " = \"" + word + "\"\n"));
      ++words;
    }
  }
  EXPECT_GT(words, 20);
}

TEST_F(Print, ShowGivesEveryKeyItsOriginAndIsItselfAFile) {
  const auto loaded = load("[train]\nsteps = 12\n[residual]\nblocks = 6\n", {"train.batch=3"});
  const std::string text = show_config(loaded, catalog_);
  EXPECT_THAT(text, ContainsRegex("steps = 12 +# .*run.toml:2\n"));
  EXPECT_THAT(text, ContainsRegex("batch = 3 +# --set\n"));
  EXPECT_THAT(text, ContainsRegex("heads = 4 +# default\n"));
  EXPECT_THAT(text, ContainsRegex("blocks = 6 +# .*run.toml:4\n"));
  EXPECT_THAT(text, ContainsRegex("partial_details = true +# default of wav\n"));
  const Config again = load(text).config;
  EXPECT_EQ(again.residual.options.size(), 3U);  // wav's three
  EXPECT_THAT(changed_keys(loaded.config, again),
              ::testing::UnorderedElementsAre("residual.partial_details", "residual.details"));
}

}  // namespace
}  // namespace wavroute
