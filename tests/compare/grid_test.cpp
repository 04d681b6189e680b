// A grid's cells: what train would refuse of one is refused before any starts.
#include "compare/grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/draft.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

const SchemeCatalog& catalog() {
  static const SchemeCatalog all = {
      {"prenorm", "", {}},
      {"wav", "", {{"blocks", OptionType::kInt, std::string("auto"), "", true, {}}}}};
  return all;
}

Config grid_of(const std::vector<std::string>& schemes,
               const std::vector<CompareVariant>& variants = {}) {
  Config config;
  config.name = "grid";
  config.compare.schemes = schemes;
  config.compare.variants = variants;
  return config;
}

std::string refusal(const Config& config) {
  try {
    static_cast<void>(expand_grid(config, catalog()));
  } catch (const UserError& error) {
    EXPECT_FALSE(error.hint().empty()) << error.what();
    return error.what();
  }
  return {};
}

TEST(Grid, OptionGoesToTheSchemesThatHaveIt) {
  Config config = grid_of({"prenorm", "wav"}, {{"w2", {"residual.scheme=\"wav\""}}});
  config.residual.options["blocks"] = int64_t{6};
  const auto cells = expand_grid(config, catalog());
  ASSERT_EQ(cells.size(), 3U);
  EXPECT_TRUE(cells[0].config.residual.options.empty());
  EXPECT_EQ(cells[1].config.residual.options.at("blocks"), OptionValue(int64_t{6}));
  EXPECT_EQ(cells[2].config.residual.options.at("blocks"), OptionValue(int64_t{6}));
  const std::vector<std::string> sets = {"residual.blocks=6", "train.steps=3"};
  EXPECT_NO_THROW(check_overrides(sets, cells, catalog()));
}

TEST(Grid, LabelsOfAnyScriptHaveFoldersOfTheirOwn) {
  Config config =
      grid_of({}, {{"\xE6\x97\xA5\xE6\x9C\xAC", {}}, {"\xE4\xB8\xAD \xE5\x9B\xBD", {}}});
  config.model.layers = 2;
  const auto cells = expand_grid(config, catalog());
  ASSERT_EQ(cells.size(), 2U);
  EXPECT_EQ(cells[0].folder, "\xE6\x97\xA5\xE6\x9C\xAC-L2-s1");
  EXPECT_EQ(cells[1].folder, "\xE4\xB8\xAD-\xE5\x9B\xBD-L2-s1");
}

TEST(Grid, OptionOfTheCommandLineThatNoSchemeOfTheGridHasIsAnError) {
  const auto cells = expand_grid(grid_of({"prenorm"}), catalog());
  const std::vector<std::string> sets = {"residual.blocks=6"};
  try {
    check_overrides(sets, cells, catalog());
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--set residual.blocks=6"));
    EXPECT_THAT(error.hint(), HasSubstr("belongs to wav"));
  }
}

TEST(Grid, LabelsThatNoFolderCanHaveAreRefused) {
  for (const std::string& label :
       {std::string("a/b"), std::string(300, 'x'), std::string("."), std::string(".."),
        std::string("a\nb"), std::string("a\x1b[31m")}) {
    Config config = grid_of({}, {{label, {"optimizer.lr=0.5"}}});
    try {
      check_consistency(config, {});
      ADD_FAILURE() << label << " was taken";
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()).find('\x1b'), std::string::npos);
    }
  }
  EXPECT_NO_THROW(check_consistency(grid_of({}, {{"wav, 50 % größer", {}}}), {}));
}

TEST(Grid, FolderOfACellIsNeitherHiddenNorATemporaryName) {
  const auto cells = expand_grid(grid_of({}, {{".tmp-x", {"optimizer.lr=0.5"}}}), catalog());
  EXPECT_EQ(cells[0].folder, "tmp-x-L12-s1");
}

TEST(Grid, LabelsThatWouldShareAFolderAreRefusedByBothNames) {
  const auto what = refusal(grid_of({}, {{"a b", {}}, {"a-b", {}}}));
  EXPECT_THAT(what, HasSubstr("'a b'"));
  EXPECT_THAT(what, HasSubstr("'a-b'"));
}

TEST(Grid, EveryCellIsHeldAgainstTheRulesOfTrain) {
  Config config = grid_of({"prenorm"});
  config.name = "fine";
  config.train.batch = 2;
  config.train.micro_batch = 3;  // a check across keys
  EXPECT_THAT(refusal(config), HasSubstr("cell prenorm-L12-s1"));
}

TEST(Grid, NamesThatNoFileOfACellCanHoldAreRefused) {
  Config config = grid_of({"prenorm"});
  config.data.train = "/caf\xe9/train.txt";
  EXPECT_THAT(refusal(config), ::testing::AllOf(HasSubstr("cell prenorm-L12-s1"),
                                                HasSubstr("data.train = \"/caf\\xe9/train.txt\"")));
}

TEST(Grid, NoSchemesAreTheVariantsAloneOrAnError) {
  const auto cells = expand_grid(grid_of({}, {{"low", {"optimizer.lr=1e-4"}}}), catalog());
  ASSERT_EQ(cells.size(), 1U);
  EXPECT_EQ(cells[0].label, "low");
  EXPECT_THAT(refusal(grid_of({})),
              HasSubstr("at least one scheme to compare, given none, in compare.schemes"));
}

TEST(Grid, DepthsHaveTheRangeOfLayers) {
  Config config = grid_of({"prenorm"});
  config.compare.depths = {0};
  EXPECT_THROW(static_cast<void>(expand_grid(config, catalog())), UserError);
}

std::vector<std::string> folders_of(const std::vector<GridCell>& cells) {
  std::vector<std::string> folders;
  for (const GridCell& cell : cells) folders.push_back(cell.folder);
  return folders;
}

TEST(Grid, EveryRowTriesTheSameRatesOnTheFirstSeedAndItsOtherSeedsWait) {
  Config config = grid_of({"prenorm", "wav"});
  config.compare.seeds = {1, 2, 3};
  config.compare.lrs = {1e-3, 3e-3};
  const auto cells = expand_grid(config, catalog());
  EXPECT_THAT(folders_of(cells),
              ::testing::ElementsAre("prenorm-lr0.001-L12-s1", "prenorm-lr0.003-L12-s1",
                                     "prenorm-L12-s2", "prenorm-L12-s3", "wav-lr0.001-L12-s1",
                                     "wav-lr0.003-L12-s1", "wav-L12-s2", "wav-L12-s3"));
  EXPECT_EQ(cells[1].role, CellRole::kRate);
  EXPECT_EQ(cells[1].config.optimizer.lr, 3e-3);
  EXPECT_THAT(cells[2].needs, ::testing::ElementsAre(0, 1));
  EXPECT_THAT(cells[7].needs, ::testing::ElementsAre(4, 5));
}

TEST(Grid, AVariantHasNoRateOfItsOwnWhereRatesAreTried) {
  Config config = grid_of({"prenorm"}, {{"low", {"optimizer.lr=1e-4"}}});
  config.compare.lrs = {1e-3, 3e-3};
  EXPECT_THAT(refusal(config), HasSubstr("optimizer.lr"));
}

TEST(Grid, BudgetsTrainTheFirstRowLongerAndEvaluateItAtTheSameStages) {
  Config config = grid_of({"prenorm", "wav"});
  config.compare.budgets = {0.5, 1.0, 2.0};
  config.compare.seeds = {1, 2};
  config.train.steps = 100;
  config.train.eval_every = 20;
  config.train.save_every = 0;
  const auto cells = expand_grid(config, catalog());
  EXPECT_THAT(folders_of(cells),
              ::testing::ElementsAre("prenorm-L12-s1", "prenorm-L12-s2", "wav-L12-s1", "wav-L12-s2",
                                     "prenorm-x0.5-L12-s1", "prenorm-x0.5-L12-s2",
                                     "prenorm-x2-L12-s1", "prenorm-x2-L12-s2"));
  EXPECT_EQ(cells[4].config.train.steps, 50);
  EXPECT_EQ(cells[4].config.train.eval_every, 10);
  EXPECT_EQ(cells[4].config.train.save_every, 0);
  EXPECT_EQ(cells[4].budget, 0.5);
  EXPECT_EQ(cells[6].config.train.steps, 200);
  EXPECT_EQ(cells[6].role, CellRole::kBudget);
}

TEST(Grid, AWiderBaselineHasTheParametersOfARowThatAddsMoreThanOnePerCent) {
  Config config = grid_of({"prenorm", "wav", "gated"},
                          {{"large", {"model.width=512", "residual.scheme=\"prenorm\""}}});
  const SchemeCatalog three = {{"prenorm", "", {}}, {"wav", "", {}}, {"gated", "", {}}};
  config.model.layers = 2;
  config.model.width = 256;  // a column more in the hidden layer of each MLP: 3 * 256 * 2 = 1536
  const auto cells = expand_grid(config, three);
  const std::vector<int64_t> parameters = {1000000, 1009999, 1015000, 4000000};
  const auto wider = wider_baselines(cells, parameters);
  ASSERT_EQ(wider.size(), 1U);            // wav adds 1 %, large is another model
  EXPECT_EQ(wider[0].hidden, 1024 + 10);  // 15000 / 1536 = 9.8
  EXPECT_THAT(wider[0].labels, ::testing::ElementsAre("gated"));
  const auto with = expand_grid(config, three, wider);
  ASSERT_EQ(with.size(), 5U);
  EXPECT_EQ(with[4].label, "prenorm-h1034");
  EXPECT_EQ(with[4].config.model.hidden, 1034);
  EXPECT_EQ(with[4].config.residual.scheme, "prenorm");
  EXPECT_THAT(with[4].wider_for, ::testing::ElementsAre("gated"));
}

}  // namespace
}  // namespace wavroute
