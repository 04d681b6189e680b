// What of a tokenizer.json is not known, contradicts itself, or would grow without bound.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/data/bpe_examples.h"
#include "tests/data/scratch.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

using nlohmann::json;
using testing::added_token;
using testing::english;
using ::testing::HasSubstr;
using testing::llama2;
using testing::read;

struct Refusal {
  const char* name;
  std::function<void(json&)> change;
  const char* says;
};

TEST(BpeJson, WhatIsNotKnownIsRefusedByName) {
  const json bert = {{"type", "BertNormalizer"}};
  const std::vector<Refusal> refusals = {
      {"model", [](json& t) { t["model"]["type"] = "Unigram"; }, "Unigram"},
      {"model", [](json& t) { t["model"]["type"] = "WordPiece"; }, "WordPiece"},
      {"normalizer", [&](json& t) { t["normalizer"] = bert; }, "BertNormalizer"},
      {"pre-tokenizer",
       [](json& t) {
         t["pre_tokenizer"] = {{"type", "Whitespace"}};
       },
       "Whitespace"},
      {"regex",
       [](json& t) {
         t["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}, {"behavior", "Isolated"}};
       },
       "\\w+"},
      {"behavior",
       [](json& t) {
         const char* regex =
             R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
         t["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Removed"}};
       },
       "Removed"},
      {"decoder",
       [](json& t) {
         t["decoder"] = {{"type", "CTC"}};
       },
       "CTC"},
      {"no decoder", [](json& t) { t["decoder"] = nullptr; }, "decoder"},
      {"two worlds",
       [](json& t) {
         t["decoder"] = {{"type", "Fuse"}};
       },
       "ByteLevel"},
      {"post-processor",
       [](json& t) {
         t["post_processor"] = {{"type", "RobertaProcessing"}};
       },
       "RobertaProcessing"},
      {"dropout", [](json& t) { t["model"]["dropout"] = 0.1; }, "dropout"},
      {"affix", [](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix"},
      {"version", [](json& t) { t["version"] = "2.0"; }, "2.0"},
  };
  for (const auto& [name, change, says] : refusals) {
    json tokenizer = english();
    change(tokenizer);
    const std::string error = user_error([&, &changed = tokenizer] { (void)read(changed); });
    EXPECT_THAT(error, HasSubstr(says)) << name;
    EXPECT_THAT(error, HasSubstr("t.json")) << name;
  }
}

TEST(BpeJson, WhatContradictsItselfIsRefused) {
  const std::vector<Refusal> refusals = {
      {"an id twice", [](json& t) { t["model"]["vocab"]["a"] = 'b'; }, "id 98"},
      {"a far id", [](json& t) { t["model"]["vocab"]["a"] = 1000000000; }, "1000000000"},
      {"a negative id", [](json& t) { t["model"]["vocab"]["a"] = -1; }, "-1"},
      {"a fraction", [](json& t) { t["model"]["vocab"]["a"] = 0.5; }, "0.5"},
      {"no vocabulary", [](json& t) { t["model"].erase("vocab"); }, "vocab"},
      {"no merges", [](json& t) { t["model"].erase("merges"); }, "merges"},
      {"a merge of one", [](json& t) { t["model"]["merges"].push_back("a"); }, "merge"},
      {"a merge of three", [](json& t) { t["model"]["merges"].push_back("a b c"); }, "merge"},
      {"a merge into nothing", [](json& t) { t["model"]["merges"].push_back("a b"); }, "ab"},
      {"a merge of nothing", [](json& t) { t["model"]["merges"].push_back("qq b"); }, "qq"},
      {"no unk_token", [](json& t) { t["model"]["unk_token"] = "<unk>"; }, "<unk>"},
      {"a token twice", [](json& t) { t["added_tokens"].push_back(added_token("<|endoftext|>")); },
       "twice"},
      {"a long token",
       [](json& t) { t["added_tokens"].push_back(added_token(std::string(5000, 'x'))); }, "5000"},
      // Four tokens and the id 4: `tokenizers` would give the added one this id too.
      {"an added token on another's id",
       [](json& t) {
         t["model"]["vocab"].erase("\xC3\xBF");
         t["model"]["vocab"]["far"] = 260;
         t["added_tokens"].push_back(added_token("<x>"));
       },
       "id 260"},
      {"a template without its token",
       [](json& t) {
         t["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}},
                                {"special_tokens", json::object()}};
       },
       "<s>"},
      {"a template without a text",
       [](json& t) {
         t["post_processor"] = {{"type", "TemplateProcessing"}, {"single", json::array()}};
       },
       "template"},
  };
  for (const auto& [name, change, says] : refusals) {
    json tokenizer = english();
    change(tokenizer);
    EXPECT_THAT(user_error([&, &changed = tokenizer] { (void)read(changed); }), HasSubstr(says))
        << name;
  }
}

TEST(BpeJson, SequencesInSequencesEnd) {
  json normalizer = {{"type", "NFC"}};
  for (int i = 0; i < 20; ++i) {
    normalizer = {{"type", "Sequence"}, {"normalizers", json::array({normalizer})}};
  }
  json tokenizer = english();
  tokenizer["normalizer"] = normalizer;
  EXPECT_THAT(user_error([&] { (void)read(tokenizer); }), HasSubstr("Sequence"));
}

// Each of them would take memory or time without end.
TEST(BpeJson, WhatGrowsWithoutBoundIsRefused) {
  const auto replace = [](size_t times) {
    json steps = json::array();
    for (size_t i = 0; i < times; ++i) {
      steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaa"}});
    }
    return steps;
  };
  json many = english(), growing = english(), decoder = llama2(), around = english();
  many["normalizer"] = {{"type", "Sequence"}, {"normalizers", replace(1000)}};
  EXPECT_THAT(user_error([&] { (void)read(many); }), HasSubstr("steps"));
  many = english();
  many["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", json(100000, json({{"type", "Digits"}}))}};
  EXPECT_THAT(user_error([&] { (void)read(many); }), HasSubstr("steps"));
  growing["normalizer"] = {{"type", "Sequence"}, {"normalizers", replace(16)}};
  const auto grows = read(growing);
  EXPECT_THAT(user_error([&] { (void)grows->encode(std::string(1000, 'a')); }), HasSubstr("long"));
  // 64 GiB in one step.
  growing["normalizer"] = {{"type", "Replace"},
                           {"pattern", {{"String", "a"}}},
                           {"content", std::string(size_t{1} << 20, 'b')}};
  const auto bursts = read(growing);
  EXPECT_THAT(user_error([&] { (void)bursts->encode(std::string(size_t{1} << 16, 'a')); }),
              HasSubstr("more than"));
  decoder["decoder"] = {{"type", "Sequence"}, {"decoders", replace(16)}};
  EXPECT_THAT(user_error([&] { (void)read(decoder); }), HasSubstr("decoder"));
  around["post_processor"] = llama2()["post_processor"];
  around["post_processor"]["special_tokens"]["<s>"]["ids"] = json(5000, 1);
  EXPECT_THAT(user_error([&] { (void)read(around); }), HasSubstr("around a prompt"));
}

}  // namespace
}  // namespace wavroute
