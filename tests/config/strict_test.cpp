#include <ostream>

#include "config/suggest.h"
#include "support.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Strict = ConfigFiles;

TEST_F(Strict, UnknownKeyNamesTheNearestWithFileAndLine) {
  const auto error = user_error([&] { (void)load("[train]\nbatch = 4\nstepz = 10\n"); });
  EXPECT_THAT(error.what, HasSubstr("expected a key of [train], given 'stepz'"));
  EXPECT_THAT(error.what, HasSubstr("run.toml:3"));
  EXPECT_EQ(error.hint, "did you mean 'steps'?");
}

TEST_F(Strict, UnknownSectionNamesTheNearestEvenWhenItIsEmpty) {
  const auto error = user_error([&] { (void)load("\n[trian]\n"); });
  EXPECT_THAT(error.what,
              AllOf(HasSubstr("expected a known section, given [trian]"), HasSubstr("run.toml:2")));
  EXPECT_EQ(error.hint, "did you mean 'train'?");
}

TEST_F(Strict, KeyInTheWrongSectionIsSentToItsOwn) {
  EXPECT_EQ(user_error([&] { (void)load("[train]\nlr = 1e-3\n"); }).hint,
            "'lr' belongs in [optimizer]");
  EXPECT_EQ(user_error([&] { (void)load("steps = 5\n"); }).hint, "'steps' belongs in [train]");
}

TEST_F(Strict, FirstMistakeOfTheFileIsTheOneReported) {
  const auto error = user_error([&] { (void)load("[train]\nzzzz = 1\naaaa = 2\n"); });
  EXPECT_THAT(error.what, HasSubstr("'zzzz'"));
}

TEST_F(Strict, RopeScalingTakesTheConstantsOfItsType) {
  const auto refused = [&](const std::string& value) {
    return user_error([&] { (void)load("[model]\nrope_scaling = " + value + "\n"); }).what;
  };
  for (const char* value :
       {"1", "\"linear\"", "\"other\"", "{}", "{factor = 2.0}", "{rope_type = \"longrope\"}",
        "{rope_type = \"linear\", factor = \"a\"}", "{rope_type = \"linear\", factro = 2.0}"}) {
    EXPECT_THAT(refused(value), AllOf(HasSubstr("rope_scaling"), HasSubstr("run.toml:2"))) << value;
  }
  EXPECT_THAT(refused("{rope_type = \"linear\", factor = 0.5}"), HasSubstr("of at least 1"));
  EXPECT_EQ(load("[model]\nrope_scaling = \"default\"\n").config.model.rope_scaling, RopeScaling{});
}

TEST_F(Strict, SinksAreKnownAndThereOnce) {
  EXPECT_EQ(load("[train]\nsinks = [\"mlflow\", \"wandb\"]\n").config.train.sinks.size(), 2U);
  const auto error = user_error([&] { (void)load("[train]\nsinks = [\"tensorbord\"]\n"); });
  EXPECT_THAT(error.what, AllOf(HasSubstr("train.sinks"), HasSubstr("run.toml:2")));
  EXPECT_EQ(error.hint, "did you mean 'tensorboard'?");
  EXPECT_EQ(user_error([&] { (void)load("[train]\nsinks = [\"csv\"]\n"); }).hint,
            "the sinks: tensorboard, wandb, trackio, mlflow");
  EXPECT_THAT(user_error([&] { (void)load("[train]\nsinks = [\"wandb\", \"wandb\"]\n"); }).what,
              HasSubstr("each item of train.sinks once"));
}

TEST_F(Strict, HeadsOfTheirOwnWidthNeedNotDivideTheModels) {
  EXPECT_EQ(load("[model]\nwidth = 16\nheads = 3\nhead_dim = 8\n").config.model.head_width(), 8);
  EXPECT_EQ(load("[model]\nwidth = 16\nheads = 2\n").config.model.head_width(), 8);
  EXPECT_THAT(user_error([&] { (void)load("[model]\nhead_dim = 7\n"); }).what,
              HasSubstr("even model.head_dim"));
}

struct Mistake {
  std::string text;      // of the file; the mistake is on line 2
  std::string expected;  // part of the message
};

void PrintTo(const Mistake& mistake, std::ostream* out) { *out << mistake.text; }

class BadValue : public ConfigFiles, public ::testing::WithParamInterface<Mistake> {};

TEST_P(BadValue, IsRefusedWithItsLine) {
  const auto error = user_error([&] { (void)compare(GetParam().text); });
  EXPECT_THAT(error.what, AllOf(HasSubstr(GetParam().expected), HasSubstr("run.toml:2")));
}

INSTANTIATE_TEST_SUITE_P(
    Types, BadValue,
    ::testing::Values(
        Mistake{"[train]\nsteps = \"10\"", "expected an integer, given a string"},
        Mistake{"[train]\nsteps = 10.0", "expected an integer, given a float"},
        Mistake{"[model]\ntie_embeddings = 1", "expected true or false, given an integer"},
        Mistake{"[optimizer]\nlr = \"1e-3\"", "expected a number, given a string"},
        Mistake{"[optimizer]\nlr = true", "expected a number, given a boolean"},
        Mistake{"[model]\noutput_init = \"none\"", "expected a number or \"auto\", given a string"},
        Mistake{"[optimizer]\nbetas = [0.9, \"x\"]", "expected a list of numbers"},
        Mistake{"[compare]\nschemes = \"wav\"", "expected a list of strings, given a string"},
        Mistake{"[compare]\nseeds = [1, 2.5]", "expected a list of integers"},
        Mistake{"[compare]\njobs = 2.0", "expected an integer or \"auto\", given a float"},
        Mistake{"[train]\nsteps = 2024-01-01", "given a date or a time"},
        Mistake{"[data]\ntrain = {}", "expected a string, given a table"},
        Mistake{"\ntrain = 3", "expected a table, given an integer"},
        Mistake{"\nextends = [\"base.toml\"]", "expected a string, given a list"}));

INSTANTIATE_TEST_SUITE_P(
    Ranges, BadValue,
    ::testing::Values(Mistake{"[model]\nlayers = 0", "given 0"},
                      Mistake{"[model]\nwidth = -4", "given -4"},
                      Mistake{"[model]\noutput_init = -0.1", "expected a value >= 0, given -0.1"},
                      Mistake{"[compare]\njobs = 0", "expected a value >= 1"},
                      Mistake{"[compare]\nlrs = [1e-3, 0.0]", "expected a value > 0, given 0.0"},
                      Mistake{"[model]\nwidth = 3000000000", "given 3000000000"},
                      Mistake{"[optimizer]\nlr = 0", "expected a value > 0, given 0.0"},
                      Mistake{"[optimizer]\nlr = nan", "given nan"},
                      Mistake{"[optimizer]\nlr = inf", "given inf"},
                      Mistake{"[optimizer]\nbetas = [0.9, 1.0]", "given 1.0"},
                      Mistake{"[optimizer]\nbetas = [0.9]", "expected two betas"},
                      Mistake{"[optimizer]\nweight_decay = -0.1", "given -0.1"},
                      Mistake{"[schedule]\nwarmup = 1.1",
                              "expected a value >= 0 and <= 1, given 1.1"},
                      Mistake{"[schedule]\nfinal = -0.1", "given -0.1"},
                      Mistake{"[train]\nbatch = 0", "expected a value >= 1"},
                      Mistake{"[train]\nseed = -1", "expected a value >= 0, given -1"},
                      Mistake{"[train]\nmicro_batch = 17", "micro_batch 17 and batch 16"},
                      Mistake{"[sample]\ntop_p = 0.0", "expected a value > 0"},
                      Mistake{"[compare]\ndepths = [12, 0]", "given 0"},
                      Mistake{"[compare]\nseeds = [1, 2, 1]", "1 twice"},
                      Mistake{"[compare]\nschemes = [\"wav\", \"wav\"]", "\"wav\" twice"},
                      Mistake{"\nname = \"a/b\"", "a name that a folder can have"}));

INSTANTIATE_TEST_SUITE_P(
    Words, BadValue,
    ::testing::Values(
        Mistake{"[train]\nprecision = \"fp16\"", "expected one of auto, bf16, fp32, given 'fp16'"},
        Mistake{"[train]\ndevice = \"gpu\"", "given 'gpu'"},
        Mistake{"[train]\nrecompute = \"all\"", "expected one of none, block, layer"},
        Mistake{"[schedule]\nname = \"linear\"", "expected one of cosine, wsd, constant"},
        Mistake{"[optimizer]\nname = \"sgd\"", "given 'sgd'"},
        Mistake{"[data]\ntokenizer = \"words\"", "expected one of bytes, chars"},
        Mistake{"[data]\ntokenizer = \"gpt2\"",
                "one of bytes, chars, or the path of a file, given 'gpt2'"},
        Mistake{"[compare]\nschemes = [\"wave\"]", "given 'wave'"},
        Mistake{"[residual]\nscheme = \"wawe\"", "given 'wawe'"}));

INSTANTIATE_TEST_SUITE_P(
    Syntax, BadValue,
    ::testing::Values(Mistake{"[train]\nsteps = ", "expected TOML"},
                      Mistake{"[train]\nrecompute = none", "expected TOML"},
                      Mistake{"[train]\nsteps = 99999999999999999999", "expected TOML"},
                      Mistake{"[train]\nsteps", "expected TOML"},
                      Mistake{"steps = 1\nsteps = 2", "expected TOML"},
                      Mistake{"[data]\nvalid = \"\xff\xfe\"", "expected TOML"}));

INSTANTIATE_TEST_SUITE_P(
    BetweenKeys, BadValue,
    ::testing::Values(Mistake{"[model]\nwidth = 66", "width 66 and 4 heads"},
                      Mistake{"[model]\nheads = 3\n", "width 256 and 3 heads"},
                      Mistake{"[model]\nwidth = 12\n", "width 12 and 4 heads"},  // head width 3
                      Mistake{"[model]\nkv_heads = 3\n", "4 heads and 3 kv_heads"},
                      Mistake{"[schedule]\ndecay = 0.99\nname = \"wsd\"",
                              "expected warmup + decay <= 1"}));

TEST_F(Strict, IntegerServesWhereANumberIsWanted) {
  const auto loaded = load("[optimizer]\nlr = 1\nbetas = [0, 0.5]\n");
  EXPECT_EQ(loaded.config.optimizer.lr, 1.0);
  EXPECT_EQ(loaded.config.optimizer.betas, (std::vector<double>{0.0, 0.5}));
}

TEST_F(Strict, ANumberMayBeLeftToTheModelByTheWordAuto) {
  const std::string given = "[model]\noutput_init = 0\n";
  EXPECT_EQ(load(given).config.model.output_init, 0.0);
  EXPECT_EQ(load(given, {"model.output_init=auto"}).config.model.output_init, std::nullopt);
  EXPECT_EQ(load("").config.model.output_init, std::nullopt);
}

TEST_F(Strict, MissingWordHintsAtTheNearest) {
  EXPECT_EQ(user_error([&] { (void)load("[train]\nprecision = \"fp23\""); }).hint,
            "did you mean 'fp32'?");
  EXPECT_EQ(user_error([&] { (void)load("[residual]\nscheme = \"block-attnres\""); }).hint,
            "did you mean 'block_attnres'?");
}

TEST(NearEnough, FindsTheWordThatWasMeantOrNone) {
  const std::vector<std::string> words = {"steps", "batch", "wav"};
  EXPECT_EQ(near_enough("stesp", words), "steps");
  EXPECT_EQ(near_enough("WAV", words), "wav");
  EXPECT_FALSE(near_enough("recompute", words).has_value());
  EXPECT_FALSE(near_enough("steps", {}).has_value());
}

}  // namespace
}  // namespace wavroute
