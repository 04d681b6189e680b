#include "inspect/inspection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/inspect/small_text.h"
#include "tests/inspect/support.h"

namespace wavroute::testing {
namespace {

constexpr int64_t kContext = 9;

// 24 scored tokens: the last window is not full.
EvalWindows windows_of(std::string_view name, int64_t tokens = 25) {
  return {small_text(tokens, name), kContext, 0};
}

TokenGroups groups_of(const std::vector<EvalWindows>& texts) {
  std::vector<int64_t> counts(17);
  for (const EvalWindows& windows : texts) count_ids(windows, counts);
  return {*make_bytes_tokenizer(), counts, kContext};
}

nlohmann::ordered_json document_of(Decoder& model, const EvalWindows& windows) {
  return to_json(inspect(model, windows, groups_of({windows}), {}));
}

class InspectionOfEveryScheme : public ::testing::TestWithParam<SchemeCase> {};

TEST_P(InspectionOfEveryScheme, TheDocumentHasARowPerReaderAndNoNaN) {
  const auto model = scattered_model(small_spec(GetParam()));
  const auto document = document_of(*model, windows_of("text"));
  const auto readers = static_cast<size_t>(2 * GetParam().layers + 1);
  EXPECT_EQ(document.at("scored"), 24.0);
  EXPECT_NEAR(document.at("loss").get<double>(), mean_loss(*model, windows_of("text"), {}), 1e-10);
  ASSERT_EQ(document.at("sublayers").size(), readers);
  ASSERT_EQ(document.at("depth_mixing").size(), readers);
  EXPECT_EQ(document.at("sublayers").back().at("name"), "read-out");
  for (size_t l = 0; l < readers; ++l) {
    const auto& row = document["depth_mixing"][l];
    ASSERT_EQ(row.size(), readers);
    for (size_t j = 0; j < readers; ++j) EXPECT_EQ(row[j].is_null(), j > l) << l << ", " << j;
    const auto& sublayer = document["sublayers"][l];
    EXPECT_EQ(sublayer.at("sublayer"), l + 1);
    const auto weights = sublayer.at("weights").get<std::vector<double>>();
    EXPECT_EQ(weights.size(), sublayer.at("sources").size());
    if (!weights.empty()) {
      EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), 1.0, 1e-9);
      EXPECT_NEAR(sublayer.at("summaries").get<double>() + sublayer.at("details").get<double>(),
                  1.0, 1e-9);
    }
    EXPECT_TRUE(sublayer.at("norms").at("stream").get<double>() > 0.0);
    EXPECT_EQ(sublayer.at("norms").at("update").is_null(), l + 1 == readers);
    EXPECT_GE(sublayer.at("age").get<double>(), 0.0);
    EXPECT_LE(sublayer.at("age").get<double>(), static_cast<double>(l));
  }
  // After the last sublayer the model ends.
  EXPECT_EQ(document["sublayers"][readers - 2].at("loss_if_last"), document.at("loss"));
}

INSTANTIATE_TEST_SUITE_P(Schemes, InspectionOfEveryScheme, ::testing::ValuesIn(scheme_cases()),
                         [](const auto& param) { return param.param.label; });

TEST(Inspection, TheMatrixIsTheMeanOverScoredTokensAndChannels) {
  const SchemeCase per_channel = {"", "gated", {{"per_channel", true}}};
  const auto model = scattered_model(small_spec(per_channel));
  const EvalWindows windows = windows_of("text", 7);  // one window with 6 of 9 tokens
  const auto document = document_of(*model, windows);
  at::Tensor ids = at::zeros({1, kContext}, at::kLong), targets = ids.clone();
  windows.fill(0, 1, {ids.mutable_data_ptr<int64_t>(), 9},
               {targets.mutable_data_ptr<int64_t>(), 9});
  LayerPass pass = run_layers(*model, ids, {});
  const Mixing mixing = mixing_of(*model, pass);
  for (size_t l = 0; l < mixing.size(); ++l) {
    for (size_t j = 0; j <= l; ++j) {
      const double expected =
          mean_of(mixing[l][j].size(1) == 1 ? mixing[l][j] : mixing[l][j].narrow(1, 0, 6));
      EXPECT_NEAR(document["depth_mixing"][l][j].get<double>(), expected, 1e-12);
    }
  }
}

// Twice as old where a prenorm stream has twice as many sublayers behind it.
TEST(Inspection, AgeIsTheMeanDistanceToWhatIsRead) {
  const auto document = document_of(*fresh_model(small_spec("prenorm")), windows_of("text"));
  for (size_t l = 0; l < 9; ++l) {
    EXPECT_NEAR(document["sublayers"][l].at("age").get<double>(), static_cast<double>(l) / 2,
                1e-12);
  }
}

TEST(Inspection, GroupsAddUpToAllTokens) {
  const auto model = scattered_model(small_spec("wav"));
  const auto document = document_of(*model, windows_of("text"));
  for (const char* kind : {"class", "position"}) {
    double tokens = 0.0, loss = 0.0, details = 0.0;
    for (const auto& [name, group] : document.at("tokens").items()) {
      if (group.at("kind") != kind || group.at("tokens") == 0.0) continue;
      const double own = group.at("tokens");
      tokens += own;
      loss += own * group.at("loss").get<double>();
      details += own * group.at("sublayers")[5].at("details").get<double>();
    }
    EXPECT_EQ(tokens, 24.0) << kind;
    EXPECT_NEAR(loss / tokens, document.at("loss").get<double>(), 1e-10) << kind;
    EXPECT_NEAR(details / tokens, document["sublayers"][5].at("details").get<double>(), 1e-10);
  }
}

TEST(Inspection, OfTwoTextsIsTheMeanOverTheirTokens) {
  for (const char* scheme : {"wav", "gated", "act"}) {
    const auto model = scattered_model(small_spec(scheme));
    const std::vector<EvalWindows> texts = {windows_of("one"), windows_of("two", 13)};
    const TokenGroups groups = groups_of(texts);
    Inspection all = inspect(*model, texts[0], groups, {});
    const Inspection second = inspect(*model, texts[1], groups, {});
    const auto a = to_json(all), b = to_json(second);
    all.add(second);
    const auto both = to_json(all);
    EXPECT_EQ(both.at("scored"), 36.0);
    const auto expect_mean = [&](const nlohmann::json::json_pointer& at) {
      const nlohmann::ordered_json::json_pointer pointer(at.to_string());
      EXPECT_NEAR(both.at(pointer).get<double>(),
                  (24.0 * a.at(pointer).get<double>() + 12.0 * b.at(pointer).get<double>()) / 36.0,
                  1e-10)
          << scheme << " " << at;
    };
    expect_mean(nlohmann::json::json_pointer("/loss"));
    expect_mean(nlohmann::json::json_pointer("/depth_mixing/8/3"));
    expect_mean(nlohmann::json::json_pointer("/sublayers/4/age"));
    if (std::string(scheme) == "gated") {
      expect_mean(nlohmann::json::json_pointer("/sublayers/4/gate/mean"));
    }
    if (std::string(scheme) == "act") expect_mean(nlohmann::json::json_pointer("/depth/mean"));
  }
}

TEST(Inspection, SaysWhereTokensHalt) {
  const auto model = scattered_model(small_spec("act"));
  const auto document = document_of(*model, windows_of("text"));
  const auto counts = document.at("depth").at("histogram").get<std::vector<double>>();
  ASSERT_EQ(counts.size(), 4U);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 24.0);
  double mean = 0.0;
  for (size_t i = 0; i < 4; ++i) mean += counts[i] * static_cast<double>(i + 1) / 24.0;
  EXPECT_NEAR(document.at("depth").at("mean").get<double>(), mean, 1e-12);
}

TEST(Inspection, GatesAreCountedByHundredths) {
  const auto model = fresh_model(small_spec("gated"));
  const auto gate = document_of(*model, windows_of("text"))["sublayers"][2].at("gate");
  EXPECT_NEAR(gate.at("mean").get<double>(), 1.0 / (1.0 + std::exp(-4.0)), 1e-9);
  EXPECT_EQ(gate.at("p10"), 0.98);
  EXPECT_EQ(gate.at("p90"), 0.98);
  EXPECT_EQ(gate.at("open"), 0.0);
}

}  // namespace
}  // namespace wavroute::testing
