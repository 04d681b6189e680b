// Layer programs: their syntax, and what they compute.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "model/generate.h"
#include "model/sublayer.h"
#include "tests/model/small_model.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using namespace wavroute::testing;
using Layers = std::vector<int64_t>;
using ::testing::HasSubstr;

TEST(LayerProgram, ReadsLayersRangesAndRepeats) {
  const std::vector<std::pair<std::string, Layers>> good = {
      {"0-4", {0, 1, 2, 3, 4}},
      {"3", {3}},
      {"2-2", {2}},
      {"0-1,3x3,4", {0, 1, 3, 3, 3, 4}},
      {"1-2x2", {1, 2, 1, 2}},
      {"4,0,4", {4, 0, 4}},
      {"every-other", {0, 2, 4}},
  };
  for (const auto& [text, layers] : good) {
    const LayerProgram program = LayerProgram::parse(text, 5);
    EXPECT_EQ(program.layers(), layers) << text;
    EXPECT_EQ(program.is_plain(), text == "0-4") << text;
  }
  EXPECT_EQ(LayerProgram(3).layers(), (Layers{0, 1, 2}));
  EXPECT_TRUE(LayerProgram(3).is_plain());
  EXPECT_TRUE(LayerProgram::parse("0,1-1,2", 3).is_plain());
}

TEST(LayerProgram, RefusesAnythingElse) {
  for (const char* text : {"",
                           ",",
                           "0,",
                           ",0",
                           "5",
                           "0-5",
                           "-1",
                           "3-1",
                           "1-",
                           "-",
                           "1x0",
                           "1x",
                           "x2",
                           "1x-2",
                           "1x2x3",
                           "0--1",
                           "a",
                           "0 ,1",
                           " 0",
                           "+1",
                           "1.0",
                           "99999999999999999999",
                           "every-second",
                           "0x9999"}) {
    EXPECT_THROW(static_cast<void>(LayerProgram::parse(text, 5)), UserError) << "'" << text << "'";
  }
}

TEST(LayerProgram, IsReadFromAFileAndWrittenAsItIsRead) {
  const TemporaryFolder folder;
  put(folder / "p.json", "[0, 1, 3, 3, 4]");
  const LayerProgram program = LayerProgram::parse("@" + (folder / "p.json").string(), 5);
  EXPECT_EQ(program.layers(), (Layers{0, 1, 3, 3, 4}));
  EXPECT_EQ(program.text(), "0-1,3x2,4");
  EXPECT_EQ(LayerProgram::parse(program.text(), 5).layers(), program.layers());
  EXPECT_TRUE(LayerProgram(Layers{0, 1, 2}, 3).is_plain());
  EXPECT_FALSE(LayerProgram(Layers{0, 2, 1}, 3).is_plain());
  EXPECT_THROW(static_cast<void>(LayerProgram::parse("@" + (folder / "p.json").string(), 4)),
               UserError);
}

TEST(LayerProgram, NamesTheLayersThatThereAre) {
  try {
    static_cast<void>(LayerProgram::parse("0-1,7", 5));
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("layers 0 to 4"));
    EXPECT_THAT(error.what(), HasSubstr("'7'"));
  }
}

// Whether the model's scheme takes a program that is not plain.
bool takes_programs(const Decoder& model) {
  try {
    model.check_program(LayerProgram::parse("every-other", model.spec().model.layers));
    return true;
  } catch (const UserError&) {
    return false;
  }
}

TEST(LayerProgram, IsTakenByEverySchemeButActAndFullAttnRes) {
  for (const SchemeInfo& scheme : residual_schemes()) {
    const auto model = fresh_model(small_spec(scheme.name));
    const bool expected = scheme.name != "act" && scheme.name != "full_attnres";
    EXPECT_EQ(takes_programs(*model), expected) << scheme.name;
    EXPECT_NO_THROW(model->check_program(LayerProgram::parse("0-3", 4))) << scheme.name;
  }
}

TEST(LayerProgram, OfAllLayersOnceIsNoProgramBitForBit) {
  for (const SchemeCase& c : scheme_cases()) {
    const auto model = scattered_model(small_spec(c));
    const at::Tensor ids = random_tokens(2, 9);
    const LayerProgram all(c.layers);
    EXPECT_TRUE(at::equal(logits_of(*model, ids, &all), logits_of(*model, ids))) << c.label;
  }
}

TEST(LayerProgram, DecodesWhatItPrefillsWithACachePerRepetition) {
  for (const SchemeCase& c : scheme_cases()) {
    const auto model = scattered_model(small_spec(c));
    if (!takes_programs(*model)) continue;
    const LayerProgram program = LayerProgram::parse("0,2x3,1,3", c.layers);
    const at::Tensor ids = random_tokens(2, 9);
    const at::Tensor whole = logits_of(*model, ids, &program);
    InferenceState state = model->inference_state(2, 9, &program);
    EXPECT_EQ(state.keys.size(), 6U);
    ForwardOptions options;
    options.program = &program;
    options.state = &state;
    std::vector<at::Tensor> steps = {model->forward(ids.narrow(1, 0, 3), options).logits};
    for (int64_t t = 3; t < 9; ++t) {
      steps.push_back(model->forward(ids.narrow(1, t, 1), options).logits);
    }
    EXPECT_LE(difference(at::cat(steps, 1), whole), 1e-12) << c.label;
  }
}

TEST(LayerProgram, OfPrenormIsTheSumOfItsLayersInOrder) {
  const auto model = scattered_model(small_spec("prenorm"));
  const at::Tensor ids = random_tokens(2, 9);
  at::Tensor h = embedded(*model, ids);
  for (const int64_t layer : {0, 2, 2, 1}) {
    for (const SublayerKind kind : {SublayerKind::kAttention, SublayerKind::kMlp}) {
      const Sublayer& f = model->sublayer({layer, kind, 0});
      const at::Tensor& gain = f.norm().gain->value;
      const at::Tensor x = at::rms_norm(h, gain.sizes(), gain, f.norm().eps);
      h = (h + f.run(x, model->backend(), nullptr, {})).detach();
    }
  }
  const LayerProgram program = LayerProgram::parse("0,2x2,1", 4);
  EXPECT_LE(difference(logits_of(*model, ids, &program), logits_after(*model, h)), 1e-12);
}

TEST(LayerProgram, ThatSkipsABlockOffersNoSourceForIt) {
  const auto model = scattered_model(small_spec("wav", {{"blocks", int64_t{4}}}));
  const LayerProgram program = LayerProgram::parse("0,2x2", 4);  // a layer is a block
  RecordingTaps taps;
  ForwardOptions options;
  options.program = &program;
  options.taps = &taps;
  static_cast<void>(model->forward(random_tokens(2, 9), options));
  std::vector<std::string> names;
  for (const SourceLabel& source : taps.reads.back().sources) names.push_back(source.name);
  EXPECT_THAT(names, ::testing::ElementsAre("e", "S1", "P1", "Q1", "S3", "P3", "Q3"));
}

TEST(LayerProgram, EveryOtherOfLayerDropIsThePrunedModel) {
  const auto model = scattered_model(small_spec("layerdrop", {}, 4));
  const LayerProgram pruned = LayerProgram::parse("every-other", 4);
  const LayerProgram listed = LayerProgram::parse("0,2", 4);
  const at::Tensor ids = random_tokens(2, 9);
  EXPECT_TRUE(at::equal(logits_of(*model, ids, &pruned), logits_of(*model, ids, &listed)));
  EXPECT_GT(difference(logits_of(*model, ids, &pruned), logits_of(*model, ids)), 1e-3);
}

}  // namespace
}  // namespace wavroute
