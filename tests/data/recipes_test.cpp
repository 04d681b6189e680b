// Recipes: the files that they take, their splits, and what they refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "data/recipes.h"
#include "tests/data/prepare_tools.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

TEST_F(PrepareTest, TinyStoriesTakesItsTwoFilesBySplit) {
  write("ts/TinyStories-train.txt", "<1>\n<|endoftext|>\n<2>\n<|endoftext|>\n<3>\n<|endoftext|>\n");
  write("ts/TinyStories-valid.txt", "<4>\n<|endoftext|>\n<1>\n<|endoftext|>\n");
  write("ts/README.md", "about");
  options_.sources = {(folder_ / "ts").string()};
  options_.recipe = "tinystories";
  EXPECT_EQ(prepare_here().sources.size(), 2);
  EXPECT_EQ(sorted(parts_of(text_of_split(SplitName::kTrain))), sorted({"<1>", "<2>", "<3>"}));
  EXPECT_EQ(sorted(parts_of(text_of_split(SplitName::kValid))), sorted({"<1>", "<4>"}));
  // The training file alone: documents of it are for validation.
  options_.sources = {(folder_ / "ts/TinyStories-train.txt").string()};
  options_.out = folder_ / "alone";
  options_.valid = 0.5;
  const Manifest manifest = prepare_here();
  EXPECT_EQ(manifest.total().documents, 3);
  options_.sources = {(folder_ / "ts/README.md").string()};
  options_.out = folder_ / "none";
  EXPECT_THAT(error_here(), HasSubstr("TinyStories-train.txt"));
}

TEST_F(PrepareTest, WikiTextIsCutIntoArticlesOfThreeSplits) {
  const auto article = [](const std::string& title, const std::string& body) {
    return " \n = " + title + " = \n \n" + body;
  };
  const std::string inner = " Text = of \n \n = = Part = = \n \n more \n = no heading = \n text \n";
  write("w/wiki.train.tokens", article("A", inner) + article("B = C", " b \n"));
  write("w/wiki.valid.tokens", article("D", " d \n"));
  write("w/wiki.test.tokens", article("E", " e \n"));
  options_.sources = {(folder_ / "w").string()};
  options_.recipe = "wikitext-103";
  const Manifest manifest = prepare_here();
  EXPECT_EQ(manifest.total(SplitName::kTrain).documents, 2);
  EXPECT_EQ(manifest.total(SplitName::kValid).documents, 1);
  EXPECT_EQ(manifest.total(SplitName::kTest).documents, 1);
  EXPECT_EQ(text_of_split(SplitName::kTest), "= E = \n \n e");
  EXPECT_THAT(text_of_split(SplitName::kTrain), HasSubstr("= B = C = \n \n b"));
  EXPECT_THAT(text_of_split(SplitName::kTrain), HasSubstr("= no heading = \n text"));
  EXPECT_TRUE(std::filesystem::exists(options_.out / "test_0000.bin"));
}

// The parts that a recipe for a file of 1,000 bytes gives, by split.
std::map<SplitName, std::string> parts(const Recipe& recipe, const std::string& path) {
  std::map<SplitName, std::string> found;
  for (const SourceFile& source : recipe_sources(recipe, {path}, {})) {
    SourceReader reader(source, "python3");
    (void)reader.read([&](const SourceDocument& document, std::optional<SplitName> split) {
      found[split.value()] += document.text;
      return true;
    });
  }
  return found;
}

TEST_F(PrepareTest, Text8AndEnwik8AreCutInOrderAndRefuseOtherTexts) {
  EXPECT_EQ(find_recipe("text8").bytes, 100'000'000);
  EXPECT_EQ(find_recipe("enwik8").bytes, 100'000'000);
  EXPECT_EQ(find_recipe("text8").tokenizer, "chars");
  Recipe text8 = find_recipe("text8"), enwik8 = find_recipe("enwik8");
  text8.bytes = enwik8.bytes = 1000;
  std::string text;
  while (text.size() < 1000) text += "some words ";
  text.resize(1000);
  const auto found = parts(text8, write("text8", text));
  EXPECT_EQ(found.at(SplitName::kTrain), text.substr(0, 900));
  EXPECT_EQ(found.at(SplitName::kValid), text.substr(900, 50));
  EXPECT_EQ(found.at(SplitName::kTest), text.substr(950));
  const auto refused = [&](const Recipe& recipe, const std::string& content) {
    const std::string path = write(std::string(recipe.name), content);
    return user_error([&] { (void)parts(recipe, path); });
  };
  EXPECT_THAT(refused(text8, text + "a"), HasSubstr("given 1,001 bytes, in"));
  text[7] = 'A';
  EXPECT_THAT(refused(text8, text), HasSubstr("given the byte 0x41, at byte 7 of"));
  EXPECT_THAT(refused(enwik8, text), HasSubstr("it begins with <mediawiki"));
  text.replace(0, 10, "<mediawiki");
  EXPECT_EQ(parts(enwik8, write("enwik8", text)).at(SplitName::kTest), text.substr(950));
}

TEST_F(PrepareTest, WebTextTakesJsonLinesOnly) {
  write("f/a.jsonl", "{\"text\": \"<1>\"}\n{\"text\": \"<2>\"}\n");
  write("f/notes.txt", "notes");
  options_.sources = {(folder_ / "f").string()};
  options_.recipe = "fineweb";
  options_.valid = 0;
  EXPECT_EQ(prepare_here().total().documents, 2);
  write("g/notes.txt", "notes");
  options_.sources = {(folder_ / "g").string()};
  options_.out = folder_ / "none";
  EXPECT_THAT(error_here(), HasSubstr("no .jsonl and no .parquet file"));
}

// A folder has other files beside its corpus; one that is named is not passed over.
TEST_F(PrepareTest, AFileThatARecipeDoesNotKnowIsRefusedWhereItIsNamed) {
  const auto given = [&](const char* recipe, std::vector<std::string> sources) {
    return user_error([&] { (void)recipe_sources(find_recipe(recipe), sources, {}); });
  };
  const std::string rows = write("f/a.jsonl", "{\"text\": \"<1>\"}\n");
  const std::string notes = write("f/notes.txt", "notes");
  const std::string stories = write("TinyStories-train.txt", "<1>");
  const std::string text8 = write("text8", "a");
  const std::string other = "given another file, at " + notes;
  EXPECT_THAT(given("fineweb", {rows, notes}), HasSubstr(other));
  EXPECT_THAT(given("tinystories", {stories, notes}), HasSubstr(other));
  EXPECT_THAT(given("text8", {text8, notes}), HasSubstr(other));
  EXPECT_THAT(given("wikitext-103", {"-"}), HasSubstr("given standard input"));
  EXPECT_EQ(recipe_sources(find_recipe("fineweb"), {(folder_ / "f").string()}, {}).size(), 1);
  EXPECT_EQ(recipe_sources(find_recipe("text8"), {text8, (folder_ / "f").string()}, {}).size(), 1);
}

}  // namespace
}  // namespace wavroute
