#include <sys/stat.h>

#include "config/print.h"
#include "support.h"

namespace wavroute {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

using Files = ConfigFiles;

TEST_F(Files, LaterFilesOfTheChainWinAndOriginsSayWhich) {
  (void)write("root.toml", "[train]\nsteps = 10\nbatch = 4\nseed = 7\n");
  (void)write("sub/middle.toml", "extends = \"../root.toml\"\n[train]\nsteps = 20\nbatch = 8\n");
  const auto path = write("top.toml", "extends = \"sub/middle.toml\"\n[train]\nsteps = 30\n");
  const std::vector<std::string> sets = {"train.keep=5"};
  const auto loaded = load_config(path, sets, catalog_, ConfigUse::kTrain);
  EXPECT_EQ(loaded.config.train.steps, 30);
  EXPECT_EQ(loaded.config.train.batch, 8);
  EXPECT_EQ(loaded.config.train.seed, 7);
  EXPECT_THAT(loaded.origins.at("train.steps"), EndsWith("top.toml:3"));
  EXPECT_THAT(loaded.origins.at("train.batch"), EndsWith("middle.toml:4"));
  EXPECT_THAT(loaded.origins.at("train.seed"), EndsWith("root.toml:4"));
  EXPECT_EQ(loaded.origins.at("train.keep"), "--set");
  EXPECT_EQ(loaded.origins.at("train.eval_every"), "default");
}

TEST_F(Files, NameIsTheStemOfTheFileUnlessGiven) {
  EXPECT_EQ(load("").config.name, "run");
  EXPECT_EQ(load("name = \"other\"").config.name, "other");
  (void)write("base.toml", "");
  EXPECT_EQ(load("extends = \"base.toml\"").config.name, "run");
}

TEST_F(Files, CycleOfExtendsIsRefusedAndShown) {
  (void)write("a.toml", "extends = \"./run.toml\"\n");
  const auto error = user_error([&] { (void)load("\nextends = \"a.toml\"\n"); });
  EXPECT_THAT(error.what, AllOf(HasSubstr("cycle"), HasSubstr("a.toml:1")));
  EXPECT_THAT(user_error([&] { (void)load("extends = \"run.toml\"\n"); }).what, HasSubstr("cycle"));
}

TEST_F(Files, MissingBaseIsAnErrorWithTheLineThatNamesIt) {
  const auto error = user_error([&] { (void)load("\nextends = \"none/of/it.toml\"\n"); });
  EXPECT_THAT(error.what, AllOf(HasSubstr("'none/of/it.toml'"), HasSubstr("run.toml:2")));
}

TEST_F(Files, MistakeInABaseFileIsReportedWithThatFile) {
  (void)write("base.toml", "\n\n[train]\nstep = 1\n");
  const auto error = user_error([&] { (void)load("extends = \"base.toml\"\n"); });
  EXPECT_THAT(error.what, HasSubstr("base.toml:4"));
}

TEST_F(Files, MissingFileIsAnErrorThatOffersPresets) {
  const auto error = user_error(
      [&] { (void)load_config((folder_ / "no.toml").string(), {}, catalog_, ConfigUse::kTrain); });
  EXPECT_THAT(error.what, HasSubstr("no.toml"));
  EXPECT_THAT(error.hint, HasSubstr("demo"));
  EXPECT_EQ(user_error([&] { (void)load_config("dmeo", {}, catalog_, ConfigUse::kTrain); }).hint,
            "did you mean 'demo'?");
}

TEST_F(Files, PathIsRelativeToTheFileThatSaysIt) {
  (void)write("sub/base.toml", "[data]\ntrain = \"t.txt\"\nvalid = \"../v.txt\"\n");
  const Config config = load("extends = \"sub/base.toml\"\n").config;
  EXPECT_EQ(config.data.train, (folder_ / "sub/t.txt").string());
  EXPECT_EQ(config.data.valid, (folder_ / "v.txt").string());
}

TEST_F(Files, PathInSetIsRelativeToTheCurrentFolder) {
  const Config config = load("[data]\ntrain = \"t.txt\"\n", {"data.train=x/y.txt"}).config;
  EXPECT_EQ(config.data.train, (std::filesystem::current_path() / "x/y.txt").string());
}

TEST_F(Files, ATokenizerIsAWordOrAPathLikeOthers) {
  (void)write("sub/base.toml", "[data]\ntokenizer = \"t.json\"\n");
  const std::string base = "extends = \"sub/base.toml\"\n";
  const DataConfig file = load(base).config.data;
  EXPECT_EQ(file.tokenizer, TokenizerKind::kFile);
  EXPECT_EQ(file.tokenizer_path, (folder_ / "sub/t.json").string());
  const DataConfig set = load(base, {"data.tokenizer=./gpt2"}).config.data;
  EXPECT_EQ(set.tokenizer_path, (std::filesystem::current_path() / "gpt2").string());
  const DataConfig word = load(base, {"data.tokenizer=chars"}).config.data;
  EXPECT_EQ(word.tokenizer, TokenizerKind::kChars);
  EXPECT_EQ(word.tokenizer_path, "");
  // A run's config.toml names it from any folder, and so does a variant.
  const Config whole = load(base +
                            "[[compare.variant]]\nlabel = \"x\"\n"
                            "data.tokenizer = \"../u.json\"\n")
                           .config;
  const auto again = write("elsewhere/config.toml", to_toml(whole));
  EXPECT_EQ(load_config(again, {}, catalog_, ConfigUse::kCompare).config.data.tokenizer_path,
            file.tokenizer_path);
  const auto& overrides = whole.compare.variants.at(0).overrides;
  EXPECT_EQ(with_overrides(whole, overrides, catalog_).data.tokenizer_path,
            (folder_.parent_path() / "u.json").string());
  EXPECT_THAT(user_error([&] { (void)load(base, {"data.tokenizer=chras"}); }).hint,
              HasSubstr("did you mean 'chars'?"));
}

TEST_F(Files, AbsolutePathsEmptyOnesAndTheCorpusStayAsTheyAre) {
  const Config config = load("[data]\ntrain = \"torch-source\"\nvalid = \"/v.txt\"\n").config;
  EXPECT_EQ(config.data.train, "torch-source");
  EXPECT_EQ(config.data.valid, "/v.txt");
  EXPECT_EQ(load("[data]\nvalid = \"\"\n", {"data.train=torch-source"}).config.data.train,
            "torch-source");
}

TEST_F(Files, FileBesidesGoesBeforeAPresetOfTheSameName) {
  EXPECT_EQ(load("extends = \"tiny.toml\"").config.model.layers, 4);  // the preset
  (void)write("tiny.toml", "[model]\nlayers = 3\n");
  EXPECT_EQ(load("extends = \"tiny.toml\"").config.model.layers, 3);
}

TEST_F(Files, ALimitGoesWithTheTextThatItWasWrittenFor) {
  const auto limit = [](const LoadedConfig& loaded) { return loaded.config.data.max_bytes; };
  const std::string tiny = "extends = \"tiny.toml\"\n";
  EXPECT_EQ(limit(load(tiny)), 500000);
  // Another text is used whole, whether a file or the command line names it ...
  EXPECT_EQ(limit(load(tiny + "[data]\ntrain = \"t.txt\"\n")), 0);
  const LoadedConfig set = load(tiny, {"train.steps=3", "data.train=t.txt"});
  EXPECT_EQ(limit(set), 0);
  EXPECT_EQ(set.origins.at("data.max_bytes"), "--set names another data.train");
  EXPECT_EQ(limit(load("[data]\ntrain = \"t.txt\"\nmax_bytes = 7\n", {"data.train=u.txt"})), 0);
  // ... unless the layer that names it, or a later one, sets a limit,
  EXPECT_EQ(limit(load(tiny + "[data]\nmax_bytes = 7\ntrain = \"t.txt\"\n")), 7);
  EXPECT_EQ(limit(load(tiny, {"data.max_bytes=7", "data.train=t.txt"})), 7);
  EXPECT_EQ(limit(load(tiny + "[data]\ntrain = \"t.txt\"\n", {"data.max_bytes=7"})), 7);
  // and the same text keeps its limit.
  EXPECT_EQ(limit(load(tiny, {"data.train=torch-source"})), 500000);
  EXPECT_EQ(limit(load(tiny + "[data]\ntokenizer = \"chars\"\n")), 500000);
  const Config given = load("[data]\ntrain = \"t.txt\"\nmax_bytes = 7\n").config;
  const std::vector<std::string> other = {"data.train=u.txt"}, seed = {"train.seed=2"};
  EXPECT_EQ(with_overrides(given, other, catalog_).data.max_bytes, 0);
  EXPECT_EQ(with_overrides(given, seed, catalog_).data.max_bytes, 7);
}

TEST_F(Files, OnlyRegularFilesOfABoundedSizeAreRead) {
  const auto refusal = [&](const std::string& path) {
    return user_error([&] { (void)load_config(path, {}, catalog_, ConfigUse::kTrain); }).what;
  };
  const std::string pipe = (folder_ / "pipe.toml").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);  // nobody writes: opening it would wait for ever
  EXPECT_THAT(refusal(pipe), HasSubstr("a regular file, given a device or pipe, at " + pipe));
  EXPECT_THAT(refusal("/dev/zero"), HasSubstr("at /dev/zero"));
  const std::string large = write("large.toml", "");
  std::filesystem::resize_file(large, uint64_t{1} << 40);
  EXPECT_THAT(refusal(large), HasSubstr("at most 1048576 bytes, given 1099511627776, at " + large));
  (void)write("base.toml", "");
  std::filesystem::remove(folder_ / "base.toml");
  ASSERT_EQ(::mkfifo((folder_ / "base.toml").c_str(), 0600), 0);
  EXPECT_THAT(refusal(write("child.toml", "extends = \"base.toml\"")), HasSubstr("base.toml"));
}

// Each of them crashes a reader that recurses once per level.
TEST_F(Files, DeepNestingIsAnErrorWithItsLine) {
  // `begin`, 20,000 times `part`, `end`.
  const auto deep = [](std::string begin, const std::string& part, const std::string& end) {
    for (int i = 0; i < 20000; ++i) begin += part;
    return begin.append(end);
  };
  const std::vector<std::string> texts = {
      deep("a = ", "[", ""),         deep("a = ", "{a=", ""),        deep("", "a.", "a = 1"),
      deep("[", "a.", "a]"),         deep("[[", "a.", "a]]"),        deep("", "[", ""),
      deep("a = {", "a.", "a = 1}"), deep("a = [{", "a.", "a = 1}]")};
  for (const std::string& text : texts) {
    const std::string what = user_error([&] { (void)load("name = \"x\"\n" + text); }).what;
    EXPECT_THAT(what, HasSubstr("run.toml:2")) << text.substr(0, 20);
    EXPECT_LT(what.size(), 400U) << text.substr(0, 20);
  }
  for (const std::string& text : {deep("", "[", ""), deep("{", "a.", "a=1}")}) {
    EXPECT_THAT(user_error([&] { (void)load("", {"train.steps=" + text}); }).what,
                HasSubstr("expected an integer"));
  }
}

}  // namespace
}  // namespace wavroute
