// Recipes: the files that they take, their splits, and what they refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST_F(PrepareTest, Text8IsCutInOrderAndRefusesOtherSymbolsAndLengths) {
  std::string text(100'000'000, 'a');
  for (size_t i = 0; i < text.size(); i += 1000) text[i] = static_cast<char>('b' + i / 1000 % 25);
  options_.recipe = "text8";
  options_.sources = {write("text8", text.substr(0, 1000))};
  EXPECT_THAT(error_here(), HasSubstr("the files of text8, given 1,000 bytes"));
  text[7] = 'A';
  options_.sources = {write("text8", text)};
  EXPECT_THAT(error_here(), HasSubstr("given the byte 0x41, at byte 7 of"));
  text[7] = ' ';
  options_.sources = {write("text8", text)};
  const Manifest manifest = prepare_here();
  EXPECT_EQ(manifest.tokenizer.name, "chars");
  EXPECT_EQ(manifest.tokenizer.vocab_size, 27);
  EXPECT_EQ(manifest.total(SplitName::kTrain).bytes, 90'000'000);
  EXPECT_EQ(manifest.total(SplitName::kValid).bytes, 5'000'000);
  EXPECT_EQ(manifest.total(SplitName::kTest).bytes, 5'000'000);
  EXPECT_EQ(text_of_split(SplitName::kTest), text.substr(95'000'000));
  options_.recipe = "enwik8";
  options_.out = folder_ / "enwik8";
  EXPECT_THAT(error_here(), HasSubstr("it begins with <mediawiki"));
}

TEST_F(PrepareTest, WebTextTakesJsonLinesOnly) {
  write("f/a.jsonl", "{\"text\": \"<1>\"}\n{\"text\": \"<2>\"}\n");
  write("f/notes.txt", "notes");
  options_.sources = {(folder_ / "f").string()};
  options_.recipe = "fineweb";
  options_.valid = 0;
  EXPECT_EQ(prepare_here().total().documents, 2);
  options_.sources = {(folder_ / "f/notes.txt").string()};
  options_.out = folder_ / "none";
  EXPECT_THAT(error_here(), HasSubstr("no .jsonl and no .parquet file"));
}

}  // namespace
}  // namespace wavroute
