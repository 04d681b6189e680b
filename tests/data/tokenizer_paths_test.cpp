// The files and folders in which tokenizers lie.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "tests/data/bpe_examples.h"
#include "tests/data/scratch.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

using nlohmann::json;
using testing::added_token;
using ::testing::ElementsAre;
using testing::english;
using ::testing::HasSubstr;
using testing::kSpace;
using testing::read;

class TokenizerPaths : public ScratchTest {};

TEST_F(TokenizerPaths, AFileOrItsFolder) {
  write("tokenizer.json", english().dump());
  EXPECT_EQ(load_tokenizer(folder_)->hash(), read(english())->hash());
  EXPECT_EQ(load_tokenizer(folder_ / "tokenizer.json")->hash(), read(english())->hash());
}

TEST_F(TokenizerPaths, TheFileBesideItSaysWhatEndsADocument) {
  json tokenizer = english();
  tokenizer["added_tokens"].push_back(added_token("<|im_end|>"));
  write("tokenizer.json", tokenizer.dump());
  for (const char* config : {R"({"eos_token": "<|im_end|>"})",
                             R"({"eos_token": {"content": "<|im_end|>", "lstrip": false}})"}) {
    write("tokenizer_config.json", config);
    EXPECT_EQ(load_tokenizer(folder_)->end_token(), 261U);
  }
  for (const char* config : {R"({"eos_token": null})", "{}"}) {
    write("tokenizer_config.json", config);
    EXPECT_EQ(load_tokenizer(folder_)->end_token(), 260U);
  }
  write("tokenizer_config.json", R"({"eos_token": 7})");
  EXPECT_THAT(user_error([&] { (void)load_tokenizer(folder_); }), HasSubstr("eos_token"));
}

TEST_F(TokenizerPaths, VocabularyAndMergesAreGpt2sRules) {
  json vocab = english()["model"]["vocab"];
  vocab["<|endoftext|>"] = 260;
  const std::string merges = "#version: 0.2\nh e\r\n" + kSpace + " t\n" + kSpace + "t he\nt he\n";
  for (const auto& [vocab_name, merges_name] :
       {std::pair("a/encoder.json", "a/vocab.bpe"), std::pair("b/vocab.json", "b/merges.txt")}) {
    write(vocab_name, vocab.dump());
    write(merges_name, merges);
    const auto tokenizer = load_tokenizer((folder_ / vocab_name).parent_path());
    EXPECT_THAT(tokenizer->encode("the the"), ElementsAre(259, 258));
    EXPECT_EQ(tokenizer->end_token(), 260U);
    EXPECT_EQ(tokenizer_from_json(tokenizer->to_json())->hash(), tokenizer->hash());
  }
}

TEST_F(TokenizerPaths, AFolderWithoutOneIsNamed) {
  write("encoder.json", "{}");
  EXPECT_THAT(user_error([&] { (void)load_tokenizer(folder_); }), HasSubstr(folder_.string()));
  EXPECT_THAT(user_error([&] { (void)load_tokenizer(folder_ / "none.json"); }),
              HasSubstr("none.json"));
}

}  // namespace
}  // namespace wavroute
