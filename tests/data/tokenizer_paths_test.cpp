// The files and folders in which tokenizers lie.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "io/gguf.h"
#include "tests/data/bpe_examples.h"
#include "tests/data/scratch.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
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

TEST_F(TokenizerPaths, OneFileOfSuchAPairStandsForBoth) {
  write("gpt2/encoder.json", english()["model"]["vocab"].dump());
  write("gpt2/vocab.bpe", "h e\n");
  const std::string hash = load_tokenizer(folder_ / "gpt2")->hash();
  EXPECT_EQ(load_tokenizer(folder_ / "gpt2/encoder.json")->hash(), hash);
  EXPECT_EQ(load_tokenizer(folder_ / "gpt2/vocab.bpe")->hash(), hash);
}

TEST_F(TokenizerPaths, AGgufFileHasTheIdsOfItsTokenizerJson) {
  const json whole = english();
  const json& model = whole["model"];
  std::vector<std::string> tokens(261, "<|endoftext|>");
  for (const auto& [token, id] : model["vocab"].items()) tokens[id.get<size_t>()] = token;
  std::vector<int32_t> types(261, 1);
  types.back() = 3;
  GgufWriter writer;
  writer.add("general.architecture", std::string("llama"));
  const fs::path none = folder_ / "none.gguf", file = folder_ / "m.gguf";
  writer.write(none);
  writer.add("tokenizer.ggml.model", std::string("gpt2"));
  writer.add("tokenizer.ggml.pre", std::string("gpt-2"));
  writer.add("tokenizer.ggml.tokens", tokens);
  writer.add_i32s("tokenizer.ggml.token_type", types);
  writer.add("tokenizer.ggml.merges", model["merges"].get<std::vector<std::string>>());
  writer.add_u32("tokenizer.ggml.eos_token_id", 260);
  writer.write(file);
  const auto tokenizer = load_tokenizer(file);
  EXPECT_EQ(tokenizer->hash(), read(english())->hash());
  EXPECT_EQ(tokenizer->end_token(), 260U);
  EXPECT_THAT(user_error([&] { (void)load_tokenizer(none); }), HasSubstr("none.gguf"));
  write("cut.gguf", "GGUF\3");
  EXPECT_THAT(user_error([&] { (void)load_tokenizer(folder_ / "cut.gguf"); }),
              HasSubstr("cut.gguf"));
}

TEST_F(TokenizerPaths, AFolderWithoutOneIsNamed) {
  write("encoder.json", "{}");
  EXPECT_THAT(user_error([&] { (void)load_tokenizer(folder_); }), HasSubstr(folder_.string()));
  EXPECT_THAT(user_error([&] { (void)load_tokenizer(folder_ / "none.json"); }),
              HasSubstr("none.json"));
}

}  // namespace
}  // namespace wavroute
