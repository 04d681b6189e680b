#include "config/print.h"
#include "support.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Overrides = ConfigFiles;

TEST_F(Overrides, ValueIsTomlOrElseABareString) {
  const Config config =
      compare("", {"optimizer.lr=3e-4", "residual.scheme=haares", "sample.prompt=a b = c",
                   "compare.schemes=[\"wav\", \"rezero\"]", " train.steps = 0x10 ",
                   "data.tokenizer=\"chars\"", "model.tie_embeddings=true", "name=mine"})
          .config;
  EXPECT_EQ(config.optimizer.lr, 3e-4);
  EXPECT_EQ(config.residual.scheme, "haares");
  EXPECT_EQ(config.sample.prompt, "a b = c");
  EXPECT_THAT(config.compare.schemes, ElementsAre("wav", "rezero"));
  EXPECT_EQ(config.train.steps, 16);
  EXPECT_EQ(config.data.tokenizer, TokenizerKind::kChars);
  EXPECT_TRUE(config.model.tie_embeddings);
  EXPECT_EQ(config.name, "mine");
}

TEST_F(Overrides, SecondLineOfAValueIsNoSecondKey) {
  const Config config = load("", {"sample.prompt=1\ntrain = 2"}).config;
  EXPECT_EQ(config.sample.prompt, "1\ntrain = 2");
}

TEST_F(Overrides, AreAsStrictAsAFile) {
  const auto message = [&](const std::string& set) {
    return user_error([&] { (void)load("", {set}); });
  };
  EXPECT_THAT(message("train.stepz=1").what,
              AllOf(HasSubstr("expected a key of [train], given 'stepz'"),
                    HasSubstr("--set train.stepz=1")));
  EXPECT_EQ(message("train.stepz=1").hint, "did you mean 'steps'?");
  EXPECT_EQ(message("trian.steps=1").hint, "did you mean 'train'?");
  EXPECT_EQ(message("steps=1").hint, "'steps' belongs in [train]");
  EXPECT_THAT(message("train.steps=ten").what, HasSubstr("expected an integer, given a string"));
  EXPECT_THAT(message("train.steps=0").what, HasSubstr("expected a value >= 1"));
  EXPECT_THAT(message("train.steps").what, HasSubstr("expected section.key=value"));
  EXPECT_THAT(message("=1").what, HasSubstr("expected section.key=value"));
  EXPECT_THAT(message("train.steps.x=1").what,
              HasSubstr("expected a key of [train], given 'steps.x'"));
  EXPECT_THAT(message("extends=base.toml").what, HasSubstr("given 'extends'"));
  EXPECT_THAT(message("sample.prompt=\xff").what, HasSubstr("UTF-8"));
}

TEST_F(Overrides, WithOverridesChangesOnlyWhatTheySay) {
  const Config base = load("[train]\nsteps = 10\n").config;
  const std::vector<std::string> sets = {"train.steps=20", "model.layers=24"};
  const Config changed = with_overrides(base, sets, catalog_);
  EXPECT_EQ(changed.train.steps, 20);
  EXPECT_THAT(changed_keys(base, changed), ElementsAre("model.layers", "train.steps"));
  EXPECT_THAT(changed_keys(base, with_overrides(base, {}, catalog_)), IsEmpty());
}

TEST_F(Overrides, WithOverridesDropsOptionsOfTheFormerSchemeOnly) {
  const Config base = load("[residual]\nblocks = 6\npartial_details = false\n").config;
  const std::vector<std::string> sets = {"residual.scheme=block_attnres"};
  const Config changed = with_overrides(base, sets, catalog_);
  EXPECT_EQ(changed.residual.options, (Options{{"blocks", int64_t{6}}}));
  const std::vector<std::string> foreign = {"residual.scheme=block_attnres",
                                            "residual.partial_details=true"};
  const auto error = user_error([&] { (void)with_overrides(base, foreign, catalog_); });
  EXPECT_THAT(error.hint, HasSubstr("belongs to haares, wav"));
}

}  // namespace
}  // namespace wavroute
