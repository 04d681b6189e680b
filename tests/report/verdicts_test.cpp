#include "report/verdicts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "report/inspection_table.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

// A sublayer that nothing is to be said of.
Json sublayer(const std::string& name, int64_t number) {
  return {{"name", name},
          {"sublayer", number},
          {"layer", (number - 1) / 2},
          {"kind", number % 2 == 1 ? "attention" : "mlp"},
          {"sources", {"e", "S1", "Q1"}},
          {"types", {"embedding", "summary", "split"}},
          {"weights", {0.5, 0.4, 0.1}},
          {"entropy", 0.9},
          {"summaries", 0.9},
          {"details", 0.1},
          {"age", 1.0},
          {"top", "e"},
          {"top_share", 0.7},
          {"gate", nullptr},
          {"norms", {{"stream", 1.0}, {"update", 0.5}, {"gradient", 0.1}}},
          {"cosine", 0.9},
          {"loss_if_last", 5.0 - static_cast<double>(number)}};
}

// Four sublayers and the read-out.
Json usual() {
  Json document = {{"run", "runs/a"}, {"scheme", "haares"}, {"layers", 2},
                   {"width", 8},      {"scored", 100.0},    {"loss", 1.0}};
  document["sublayers"] = {sublayer("attention 0", 1), sublayer("mlp 0", 2),
                           sublayer("attention 1", 3), sublayer("mlp 1", 4),
                           sublayer("read-out", 5)};
  document["sublayers"][4]["norms"]["update"] = nullptr;
  document["sublayers"][4]["loss_if_last"] = 1.0;
  document["depth_mixing"] = Json::array();
  for (size_t l = 0; l < 5; ++l) {
    Json row = Json::array();
    for (size_t j = 0; j < 5; ++j) row.push_back(j <= l ? Json(1.0) : Json());
    document["depth_mixing"].push_back(row);
  }
  document["tokens"] = Json::object();
  document["tokens"]["letters"] = {{"kind", "class"}, {"tokens", 60.0},  {"loss", 1.5},
                                   {"entropy", 0.9},  {"details", 0.1},  {"age", 1.0},
                                   {"gate", nullptr}, {"depth", nullptr}};
  document["texts"] = {{{"data", "a.txt"}, {"scored", 100.0}, {"loss", 1.0}}};
  document["depth"] = nullptr;
  document["verdicts"] = Json::array();
  return document;
}

// The only verdict, with every key that the page and scripts rely on.
Json only(const Json& document) {
  const Json verdicts = verdicts_of(document);
  EXPECT_EQ(verdicts.size(), 1U) << verdicts.dump(1);
  Json verdict = verdicts.at(0);
  for (const char* key : {"text", "metric", "value", "threshold", "sublayer"}) {
    EXPECT_TRUE(verdict.contains(key)) << key;
  }
  return verdict;
}

TEST(Verdicts, NothingIsSaidOfAModelWithNothingToSay) {
  EXPECT_EQ(verdicts_of(usual()), Json::array());
}

TEST(Verdicts, ACoefficientLeftItsStartBeyondTwiceARandomWalk) {
  Json document = usual();
  document["coefficients"] = {{{"name", "model.layers.1.self_attention_res_proj.weight"},
                               {"kind", "res_proj.weight"},
                               {"sublayer", 3},
                               {"moved", 0.5},
                               {"ratio", 5.25}}};
  Json verdict = only(document);
  EXPECT_EQ(verdict.at("metric"), "reach_ratio");
  EXPECT_EQ(verdict.at("value"), 5.25);
  EXPECT_EQ(verdict.at("threshold"), 2.0);
  EXPECT_EQ(verdict.at("sublayer"), 3);
  EXPECT_EQ(verdict.at("text"),
            "the router's query of attention 1 left its start: it moved 5.25 times as far as a "
            "random walk under Adam's updates");
  document["coefficients"][0]["ratio"] = 0.8;
  EXPECT_NE(only(document).at("text").get<std::string>().find("did not leave"), std::string::npos);
}

TEST(Verdicts, ARouterThatReadsOneSourceIsNamedWithIt) {
  Json document = usual();
  document["sublayers"][2]["weights"] = {0.02, 0.97, 0.01};
  const Json verdict = only(document);
  EXPECT_EQ(verdict.at("text"), "attention 1 reads one source, S1: 97 % of the weight");
  EXPECT_EQ(verdict.at("sublayer"), 3);
}

TEST(Verdicts, DetailsOfOneRouterAndOfAll) {
  Json document = usual();
  document["sublayers"][3]["details"] = 0.004;
  EXPECT_EQ(only(document).at("text"),
            "mlp 1 does not use its details: they get 0.4 % of its weight");
  for (Json& one : document["sublayers"]) one["details"] = 0.004;
  const Json verdicts = verdicts_of(document);
  ASSERT_EQ(verdicts.size(), 6U);
  EXPECT_EQ(verdicts.back().at("sublayer"), nullptr);
  EXPECT_EQ(verdicts.back().at("text"),
            "details are never used: no router gives them more than 0.4 %");
}

TEST(Verdicts, GatesThatAreStuck) {
  Json document = usual();
  Json& gate = document["sublayers"][1]["gate"];
  gate = {{"mean", 1.0}, {"p10", 1.0}, {"p90", 1.0}, {"closed", 0.0}, {"open", 0.995}};
  EXPECT_EQ(only(document).at("text"), "the gate of mlp 0 is stuck at 1 for 99.5 % of the tokens");
  gate["open"] = 0.0, gate["closed"] = 1.0;
  EXPECT_EQ(only(document).at("metric"), "gate_closed");
}

TEST(Verdicts, WhatTheLossBecomesWithoutARouter) {
  Json document = usual();
  document["ablation"] = {
      {{"sublayer", 4}, {"name", "mlp 1"}, {"loss", 1.35}, {"difference", 0.35}}};
  Json verdict = only(document);
  EXPECT_EQ(verdict.at("text"),
            "with the coefficients of mlp 1 put back to their start the loss becomes 1.3500 "
            "(+0.3500)");
  EXPECT_EQ(verdict.at("value"), 0.35);
  document["ablation"][0]["difference"] = 0.001;
  EXPECT_NE(only(document).at("text").get<std::string>().find("does not matter"),
            std::string::npos);
}

TEST(Verdicts, WhereTheModelCouldEnd) {
  Json document = usual();
  document["sublayers"][1]["loss_if_last"] = 1.01;
  document["sublayers"][2]["loss_if_last"] = 0.995;
  const Json verdict = only(document);
  EXPECT_EQ(verdict.at("metric"), "loss_if_last");
  EXPECT_EQ(verdict.at("sublayer"), 2);
  EXPECT_EQ(verdict.at("text"),
            "after mlp 0 the loss would already be 1.0100, within 0.02 of the end's 1.0000: the 2 "
            "sublayers after it hardly change it");
  // One in between that would cost more.
  document["sublayers"][2]["loss_if_last"] = 1.5;
  EXPECT_EQ(verdicts_of(document), Json::array());
}

TEST(Verdicts, ASublayerThatAddsLittle) {
  Json document = usual();
  document["depth_mixing"][2][2] = -1e-3;  // of an update half as large as the stream
  const Json verdict = only(document);
  EXPECT_EQ(verdict.at("metric"), "relative_update");
  EXPECT_NEAR(verdict.at("value").get<double>(), 5e-4, 1e-12);
  EXPECT_EQ(verdict.at("sublayer"), 2);
}

TEST(Verdicts, WhereTokensHalt) {
  Json document = usual();
  document["depth"] = {{"mean", 1.25}, {"histogram", {75, 25}}};
  EXPECT_EQ(only(document).at("text"), "tokens halt after 1.25 of 2 layers in the mean");
}

TEST(InspectionText, HasTheSublayersTheTokensAndTheVerdicts) {
  Json document = usual();
  document["verdicts"] = Json::array();
  for (int64_t i = 1; i <= 6; ++i) {
    document["verdicts"].push_back({{"text", "verdict " + std::to_string(i)},
                                    {"metric", "top_weight"},
                                    {"value", 1.0},
                                    {"threshold", 0.95},
                                    {"sublayer", i}});
  }
  const std::string text = inspection_text(document);
  EXPECT_NE(text.find("haares, 2 layers of width 8: loss 1.0000 nats/token over 100 tokens"),
            std::string::npos);
  EXPECT_NE(text.find("attention 0"), std::string::npos);
  EXPECT_NE(text.find("letters"), std::string::npos);
  EXPECT_EQ(text.find("gate"), std::string::npos);  // there is none
  EXPECT_NE(text.find("- verdict 4\n- and 2 more of top_weight\n"), std::string::npos) << text;
}

// Every router has such a verdict: the text begins with those that matter most.
TEST(InspectionText, BeginsWithTheLargestOfWhatEverySublayerHas) {
  Json document = usual();
  document["ablation"] = Json::array();
  for (int64_t i = 1; i <= 6; ++i) {
    document["ablation"].push_back({{"sublayer", i},
                                    {"name", "router " + std::to_string(i)},
                                    {"loss", 1.0},
                                    {"difference", i == 5 ? 0.5 : 1e-3 * static_cast<double>(i)}});
  }
  document["verdicts"] = verdicts_of(document);
  const std::string text = inspection_text(document);
  const size_t counted = text.find("- what was learnt at 1 of 6 sublayers changes the loss\n");
  const size_t first = text.find("of router 5 put back"),
               second = text.find("of router 6 put back");
  EXPECT_LT(counted, first);
  EXPECT_LT(first, second);
  EXPECT_EQ(text.find("of router 1 put back"), std::string::npos);
}

TEST(InspectionText, PutsTwoTextsSideBySide) {
  Json document = usual();
  Json text = document;
  text["data"] = "a.txt";
  document["texts"] = {text, text};
  document["texts"][1]["data"] = "b.py";
  document["texts"][1]["sublayers"][1]["age"] = 7.5;
  const std::string words = inspection_text(document);
  EXPECT_NE(words.find("text 2: b.py"), std::string::npos);
  EXPECT_NE(words.find("age 1  age 2"), std::string::npos) << words;
  EXPECT_NE(words.find("7.5"), std::string::npos);
}

TEST(InspectionPage, HoldsTheDataAndNothingFromElsewhere) {
  Json document = usual();
  document["run"] = "</script><img src=x onerror=alert(1)>";
  document["verdicts"] = {{{"text", "a < b"},
                           {"metric", "top_weight"},
                           {"value", 1.0},
                           {"threshold", 0.95},
                           {"sublayer", 1}}};
  const std::string page = inspection_page(document);
  EXPECT_EQ(page.find("<img"), std::string::npos);
  EXPECT_NE(page.find("a &lt; b"), std::string::npos);
  EXPECT_EQ(page.find("http://www.w3.org") == std::string::npos, false);  // a name, not a link
  EXPECT_EQ(page.find("src=\""), std::string::npos);
  EXPECT_EQ(page.find("{{"), std::string::npos);
}

}  // namespace
}  // namespace wavroute
