#include "support.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using SchemeOption = ConfigFiles;

TEST_F(SchemeOption, IsKeptInTheTypeThatTheSchemeDeclares) {
  const auto option = [&](const std::string& text, const std::string& key) {
    return load("[residual]\n" + text).config.residual.options.at(key);
  };
  EXPECT_EQ(option("scheme = \"layerdrop\"\np = 1", "p"), OptionValue(1.0));
  EXPECT_EQ(option("blocks = \"auto\"", "blocks"), OptionValue(std::string("auto")));
  EXPECT_EQ(option("blocks = 6", "blocks"), OptionValue(int64_t{6}));
  EXPECT_EQ(option("details = []", "details"), OptionValue(std::vector<std::string>{}));
  EXPECT_EQ(option("details = [\"phase\"]", "details"),
            OptionValue(std::vector<std::string>{"phase"}));
  EXPECT_EQ(option("scheme = \"gated\"\nwindows = []", "windows"),
            OptionValue(std::vector<int64_t>{}));
}

TEST_F(SchemeOption, OfTheWrongTypeOrWordIsRefused) {
  const auto what = [&](const std::string& text) {
    return user_error([&] { (void)load("[residual]\n" + text); }).what;
  };
  EXPECT_THAT(what("blocks = 1.5"),
              AllOf(HasSubstr("expected an integer or \"auto\", given 1.5"), HasSubstr("toml:2")));
  EXPECT_THAT(what("blocks = \"six\""), HasSubstr("expected an integer or \"auto\""));
  EXPECT_THAT(what("partial_details = \"auto\""), HasSubstr("expected true or false, given"));
  EXPECT_THAT(what("details = [\"phase\", \"haar\"]"), HasSubstr("one of phase, split"));
  EXPECT_THAT(what("details = [1]"), HasSubstr("expected a list of strings"));
  EXPECT_THAT(what("details = [1, \"a\"]"), HasSubstr("expected a list of integers or of strings"));
  EXPECT_THAT(what("blocks = {}"), HasSubstr("given a table"));
  EXPECT_THAT(what("scheme = \"rezero\"\nnorm = \"post\""), HasSubstr("one of pre, none"));
  EXPECT_THAT(what("scheme = \"layerdrop\"\np = nan"), HasSubstr("finite"));
}

TEST_F(SchemeOption, ThatNoSchemeKnowsNamesTheNearestOfTheChosenOne) {
  const auto error = user_error([&] { (void)load("[residual]\nscheme = \"wav\"\nblcks = 6\n"); });
  EXPECT_THAT(error.what,
              AllOf(HasSubstr("expected a key of [residual], given 'blcks'"), HasSubstr("toml:3")));
  EXPECT_EQ(error.hint, "did you mean 'blocks'?");
}

TEST_F(SchemeOption, OfAnotherSchemeIsAnErrorThatNamesTheScheme) {
  const auto of_file = user_error([&] { (void)load("[residual]\nscheme = \"wav\"\np = 0.1\n"); });
  EXPECT_THAT(of_file.what, HasSubstr("run.toml:3"));
  EXPECT_THAT(of_file.hint, HasSubstr("'p' belongs to layerdrop"));
  EXPECT_THAT(user_error([&] { (void)load("[residual]\np = 0.1\n"); }).hint,
              HasSubstr("layerdrop"));  // the default scheme is wav
  EXPECT_THAT(user_error([&] { (void)load("", {"residual.p=0.1"}); }).hint, HasSubstr("layerdrop"));
  EXPECT_THAT(user_error([&] {
                (void)load("[residual]\nscheme = \"wav\"\n",
                           {"residual.scheme=rezero", "residual.blocks=2"});
              }).hint,
              HasSubstr("'blocks' belongs to"));
}

TEST_F(SchemeOption, OfTheFileIsDroppedWhenSetChoosesAnotherScheme) {
  const std::string file = "[residual]\nscheme = \"wav\"\nblocks = 6\npartial_details = false\n";
  const auto loaded = load(file, {"residual.scheme=block_attnres"});
  EXPECT_EQ(loaded.config.residual.options, (Options{{"blocks", int64_t{6}}}));
  EXPECT_FALSE(loaded.origins.contains("residual.partial_details"));
  EXPECT_TRUE(loaded.origins.contains("residual.blocks"));
}

TEST_F(SchemeOption, OfABaseIsDroppedWhenTheFileChoosesAnotherScheme) {
  (void)write("base.toml", "[residual]\nscheme = \"wav\"\nblocks = 6\n");
  const auto loaded = load("extends = \"base.toml\"\n[residual]\nscheme = \"prenorm\"\n");
  EXPECT_THAT(loaded.config.residual.options, IsEmpty());
  // An error in the base itself remains one, whatever is chosen later.
  (void)write("base.toml", "[residual]\nscheme = \"wav\"\np = 0.1\n");
  EXPECT_THAT(
      user_error([&] { (void)load("extends = \"base.toml\"", {"residual.scheme=prenorm"}); }).hint,
      HasSubstr("layerdrop"));
}

TEST_F(SchemeOption, OfAnySchemeOfTheComparisonIsKeptAndGoesToThoseThatKnowIt) {
  const Config config = compare(
                            "[residual]\np = 1\nblocks = 6\n"
                            "[compare]\nschemes = [\"prenorm\", \"layerdrop\", \"wav\"]\n")
                            .config;
  EXPECT_THAT(options_for(config, "prenorm", catalog_), IsEmpty());
  EXPECT_EQ(options_for(config, "layerdrop", catalog_), (Options{{"p", 1.0}}));
  EXPECT_EQ(options_for(config, "wav", catalog_), (Options{{"blocks", int64_t{6}}}));
}

TEST_F(SchemeOption, OfNoSchemeOfTheComparisonIsRefused) {
  const auto error = user_error(
      [&] { (void)compare("[residual]\np = 0.1\n[compare]\nschemes = [\"prenorm\"]\n"); });
  EXPECT_THAT(error.hint, HasSubstr("'p' belongs to layerdrop"));
}

using Variants = ConfigFiles;

TEST_F(Variants, BecomeOverridesFromDottedKeysAndTables) {
  const Config config = compare(
                            "[[compare.variant]]\nlabel = \"one\"\nresidual.scheme = \"haares\"\n"
                            "residual.partial_details = false\noptimizer.lr = 3e-4\n"
                            "[[compare.variant]]\nlabel = \"two\"\n[compare.variant.residual]\n"
                            "scheme = \"layerdrop\"\np = 0.5\n")
                            .config;
  ASSERT_EQ(config.compare.variants.size(), 2U);
  const auto& [one, two] = std::tie(config.compare.variants[0], config.compare.variants[1]);
  EXPECT_EQ(one.label, "one");
  const Config first = with_overrides(config, one.overrides, catalog_);
  EXPECT_EQ(first.residual.scheme, "haares");
  EXPECT_EQ(first.residual.options, (Options{{"partial_details", false}}));
  EXPECT_EQ(first.optimizer.lr, 3e-4);
  EXPECT_EQ(two.label, "two");
  const Config second = with_overrides(config, two.overrides, catalog_);
  EXPECT_EQ(second.residual.scheme, "layerdrop");
  EXPECT_EQ(second.residual.options, (Options{{"p", 0.5}}));
}

TEST_F(Variants, PathIsRelativeToTheFileWhereverItIsUsed) {
  const Config config =
      compare("[[compare.variant]]\nlabel = \"x\"\ndata.train = \"t.txt\"").config;
  const auto changed = with_overrides(config, config.compare.variants.at(0).overrides, catalog_);
  EXPECT_EQ(changed.data.train, (folder_ / "t.txt").string());
}

TEST_F(Variants, AreAsStrictAsTheRest) {
  const auto what = [&](const std::string& text) {
    return user_error([&] { (void)compare("\n[[compare.variant]]\n" + text); }).what;
  };
  EXPECT_THAT(
      what("label = \"a\"\noptimizer.lrr = 1"),
      AllOf(HasSubstr("expected a key of [optimizer], given 'lrr'"), HasSubstr("run.toml:4")));
  EXPECT_THAT(what("label = \"a\"\noptimizer.lr = \"x\""), HasSubstr("expected a number"));
  EXPECT_THAT(what("label = \"a\"\nresidual.p = 0.1"), HasSubstr("an option of wav"));
  EXPECT_THAT(what("label = \"a\"\nlr = 1"), HasSubstr("stands above the sections, given 'lr'"));
  EXPECT_THAT(what("label = \"a\"\ncompare.seeds = [1]"), HasSubstr("given 'compare.seeds'"));
  EXPECT_THAT(what("label = \"a\"\nmodel.heads = 3"), HasSubstr("3 heads, "));
  EXPECT_THAT(what("optimizer.lr = 1"), AllOf(HasSubstr("a label"), HasSubstr("run.toml:2")));
  EXPECT_THAT(what("label = 3"), HasSubstr("a label"));
  EXPECT_THAT(what("label = \"a\"\n[[compare.variant]]\nlabel = \"a\"\n"),
              HasSubstr("a label that no other row"));
  EXPECT_THAT(what("label = \"wav\"\n[compare]\nschemes = [\"wav\"]"),
              HasSubstr("a label that no other row"));
  EXPECT_THAT(user_error([&] { (void)compare("[compare]\nvariant = 3"); }).what,
              HasSubstr("expected tables, given an integer"));
}

TEST_F(Variants, CanComeFromTheCommandLine) {
  const std::string set = "compare.variant=[{label=\"x\", optimizer.lr=0.5, data.valid=\"v.txt\"}]";
  const Config config = compare("", {set}).config;
  ASSERT_EQ(config.compare.variants.size(), 1U);
  const auto changed = with_overrides(config, config.compare.variants[0].overrides, catalog_);
  EXPECT_EQ(changed.optimizer.lr, 0.5);
  EXPECT_EQ(changed.data.valid, (std::filesystem::current_path() / "v.txt").string());
  const std::string bad = "compare.variant=[{label=\"x\", optimizr.lr=0.5}]";
  EXPECT_THAT(user_error([&] { (void)compare("", {bad}); }).what,
              AllOf(HasSubstr("expected a known section, given [optimizr]"),
                    ::testing::EndsWith("--set " + bad)));
}

}  // namespace
}  // namespace wavroute
