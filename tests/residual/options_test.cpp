// What a scheme accepts as its options.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "residual/options_json.h"
#include "tests/model/small_model.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using Strings = std::vector<std::string>;
using Integers = std::vector<int64_t>;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The message of the refusal, hint included.
std::string refusal(const std::string& scheme, const Options& options, int64_t layers = 4) {
  try {
    static_cast<void>(fresh_model(small_spec(scheme, options, layers)));
  } catch (const UserError& error) {
    return std::string(error.what()) + " | " + error.hint();
  }
  return "accepted";
}

TEST(Registry, HoldsTheSchemesOfTheMethodInItsOrder) {
  Strings names;
  for (const SchemeInfo& scheme : residual_schemes()) names.push_back(scheme.name);
  EXPECT_EQ(names, (Strings{"prenorm", "rezero", "layerscale", "block_layerscale", "layerdrop",
                            "gated", "act", "denseformer", "mhc_lite", "full_attnres",
                            "block_attnres", "haares", "wav"}));
  ASSERT_EQ(scheme_catalog().size(), names.size());
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(scheme_catalog()[i].scheme, names[i]);
}

TEST(Registry, NamesTheNearestScheme) {
  EXPECT_THAT(refusal("block_atnres", {}), HasSubstr("'block_attnres'"));
}

TEST(Options, RefuseANameThatTheSchemeDoesNotHave) {
  for (const SchemeInfo& scheme : residual_schemes()) {
    EXPECT_THAT(refusal(scheme.name, {{"blokcs", int64_t{2}}}),
                AllOf(HasSubstr(scheme.name), HasSubstr("'blokcs'")));
  }
}

TEST(Options, RefuseAValueOfAnotherType) {
  const std::vector<std::pair<std::string, Options>> wrong = {
      {"wav", {{"blocks", 2.0}}},
      {"wav", {{"blocks", std::string("two")}}},
      {"wav", {{"details", true}}},
      {"wav", {{"details", Integers{1}}}},
      {"wav", {{"partial_details", std::string("yes")}}},
      {"layerdrop", {{"p", std::string("auto")}}},
      {"gated", {{"windows", Strings{"1"}}}},
      {"gated", {{"rank", 2.5}}},
      {"rezero", {{"norm", int64_t{0}}}},
  };
  for (const auto& [scheme, options] : wrong) {
    EXPECT_THAT(refusal(scheme, options),
                AllOf(HasSubstr("residual." + options.begin()->first), HasSubstr("expected ")));
  }
}

TEST(Options, TakeAnIntegerForANumber) {
  const auto model = fresh_model(small_spec("wav", {{"beta", int64_t{-3}}}));
  EXPECT_EQ(model->spec().options.at("beta"), OptionValue(-3.0));
}

TEST(Options, RefuseWhatContradictsTheScheme) {
  const std::vector<std::tuple<std::string, Options, std::string>> wrong = {
      {"block_attnres", {{"details", Strings{"phase"}}}, "residual.details"},
      {"haares", {{"details", Strings{"phase"}}}, "residual.details"},
      {"haares", {{"details", Strings{}}}, "residual.details"},
      {"wav", {{"details", Strings{"phase", "phase"}}}, "residual.details"},
      {"wav", {{"details", Strings{"wave"}}}, "residual.details"},
      {"wav", {{"matching_epsilon", -1e-12}}, "residual.matching_epsilon"},
      {"rezero", {{"norm", std::string("post")}}, "residual.norm"},
      {"layerdrop", {{"p", 1.0}}, "residual.p"},
      {"layerdrop", {{"p", -0.1}}, "residual.p"},
      {"layerdrop", {{"p", std::nan("")}}, "residual.p"},
      {"layerdrop", {{"schedule", std::string("cosine")}}, "residual.schedule"},
      {"gated", {{"windows", Integers{}}}, "residual.windows"},
      {"gated", {{"windows", Integers{1, 0}}}, "residual.windows"},
      {"gated", {{"rank", int64_t{0}}}, "residual.rank"},
      {"gated", {{"freeze", 1.5}}, "residual.freeze"},
      {"gated", {{"stddev", -0.02}}, "residual.stddev"},
      {"gated", {{"gate_reuse", std::string("always")}}, "residual.gate_reuse"},
      {"act", {{"epsilon", 0.0}}, "residual.epsilon"},
      {"act", {{"epsilon", 1.0}}, "residual.epsilon"},
      {"denseformer", {{"dilation", int64_t{0}}}, "residual.dilation"},
      {"denseformer", {{"period", int64_t{-1}}}, "residual.period"},
      {"mhc_lite", {{"streams", int64_t{1}}}, "residual.streams"},
      {"mhc_lite", {{"streams", int64_t{6}}}, "residual.streams"},
  };
  for (const auto& [scheme, options, expected] : wrong) {
    EXPECT_THAT(refusal(scheme, options), HasSubstr(expected)) << scheme;
  }
}

TEST(Options, RefuseOddBlocksWithDetailsAlone) {
  // 6 layers in 4 blocks: 3 sublayers each. 3 x 4 and 6 x 2 are the nearest that are even.
  for (const char* scheme : {"haares", "wav"}) {
    EXPECT_THAT(refusal(scheme, {{"blocks", int64_t{4}}}, 6), HasSubstr("3, 6")) << scheme;
  }
  EXPECT_EQ(refusal("block_attnres", {{"blocks", int64_t{4}}}, 6), "accepted");
  EXPECT_EQ(refusal("wav", {{"blocks", int64_t{4}}, {"details", Strings{}}}, 6), "accepted");
}

TEST(Options, OfAModelAreSpelledOutAndMakeTheSameModelAgain) {
  for (const SchemeCase& c : scheme_cases()) {
    const auto model = fresh_model(small_spec(c));
    const Options& all = model->spec().options;
    size_t declared = 0;
    for (const OptionSpec& option : find_scheme(c.scheme).options) {
      ASSERT_TRUE(all.contains(option.name)) << c.label << " " << option.name;
      EXPECT_NE(all.at(option.name), OptionValue(std::string("auto"))) << c.label;
      ++declared;
    }
    EXPECT_EQ(all.size(), declared);
    const nlohmann::json written = nlohmann::json::parse(residual_to_json(c.scheme, all).dump());
    const auto [scheme, read] = residual_from_json(written, "a test");
    EXPECT_EQ(scheme, c.scheme);
    const auto again = fresh_model(small_spec(scheme, read, c.layers));
    EXPECT_EQ(again->spec().options, all) << c.label;
    expect_equal(values_of(*again), values_of(*model));
  }
}

TEST(Options, OfACheckpointMustBeAnObjectWithAScheme) {
  for (const char* text : {"[]", "3", "{}", R"({"scheme": 1})", R"({"scheme": "wav", "x": {}})",
                           R"({"scheme": "wav", "x": [1, "a"]})"}) {
    EXPECT_THROW(static_cast<void>(residual_from_json(nlohmann::json::parse(text), "a test")),
                 UserError)
        << text;
  }
}

TEST(LayerScale, StartsAtCaitsValueForTheDepth) {
  const auto init = [](int64_t layers) {
    DecoderSpec spec = small_spec("layerscale", {}, layers);
    return std::get<double>(fresh_model(spec)->spec().options.at("init"));
  };
  EXPECT_EQ(init(18), 0.1);
  EXPECT_EQ(init(19), 1e-5);
  EXPECT_EQ(init(24), 1e-5);
  EXPECT_EQ(init(25), 1e-6);
}

// The values of every parameter whose name ends so, of a fresh model.
NamedTensors initial(const std::string& scheme, const Options& options, const std::string& suffix,
                     int64_t layers = 4) {
  NamedTensors all = values_of(*fresh_model(small_spec(scheme, options, layers)));
  std::erase_if(all, [&](const auto& item) { return !item.first.ends_with(suffix); });
  EXPECT_FALSE(all.empty()) << suffix;
  return all;
}

TEST(Act, HaltsEvenlyOverTheDepthUnlessABiasIsGiven) {
  const auto resolved = [](int64_t layers) {
    return std::get<double>(
        fresh_model(small_spec("act", {}, layers))->spec().options.at("halt_bias"));
  };
  EXPECT_EQ(resolved(2), 0.0);  // a half, then the rest
  EXPECT_EQ(resolved(5), -std::log(4.0));
  EXPECT_EQ(resolved(48), -std::log(47.0));
  for (const auto& [name, bias] : initial("act", {}, "halt.bias", 5)) {
    EXPECT_EQ(bias.item<double>(), -std::log(4.0)) << name;
  }
  for (const auto& [name, bias] : initial("act", {{"halt_bias", int64_t{-2}}}, "halt.bias")) {
    EXPECT_EQ(bias.item<double>(), -2.0) << name;
  }
}

TEST(Gated, DrawsW1WithTheGivenDeviation) {
  const NamedTensors plain = initial("gated", {}, "fc1.weight");
  const NamedTensors spelled = initial("gated", {{"stddev", 0.02}}, "fc1.weight");
  const NamedTensors twice = initial("gated", {{"stddev", 0.04}}, "fc1.weight");
  expect_equal(spelled, plain);
  for (const auto& [name, weight] : plain) {
    EXPECT_TRUE(at::equal(twice.at(name), 2.0 * weight)) << name;
    EXPECT_NEAR(weight.std().item<double>(), 0.02, 0.01) << name;
  }
}

TEST(Gated, ChoosesARankOfEightThousandthsOfTheWidth) {
  const auto rank = [](int64_t width) {
    DecoderSpec spec = small_spec("gated", {}, 1);
    spec.model.width = width;
    return std::get<int64_t>(fresh_model(spec)->spec().options.at("rank"));
  };
  EXPECT_EQ(rank(64), 2);   // at least 2
  EXPECT_EQ(rank(256), 2);  // 2.05
  EXPECT_EQ(rank(512), 4);  // 4.1
}

}  // namespace
}  // namespace wavroute
