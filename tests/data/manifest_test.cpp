// manifest.json: what is written is read back, and what is damaged is refused by key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "data/manifest.h"
#include "tests/data/scratch.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

Manifest example() {
  Manifest manifest;
  manifest.settings = {"fineweb", "text", "\n", 0.25, 7, true};
  manifest.tokenizer = {"bpe", 50257, std::string(64, 'a'), 50256};
  manifest.sources = {{"a.txt", std::string(64, 'b'), 10, 2}};
  manifest.files = {{"train_0000.bin", SplitName::kTrain, {2, 8, 5}, std::string(64, 'c')},
                    {"valid_0000.bin", SplitName::kValid, {1, 2, 3}, std::string(64, 'd')}};
  manifest.duplicates = 4;
  manifest.empty = 5;
  manifest.invalid_bytes = 6;
  return manifest;
}

TEST(Manifest, ComesBackAsItWasWritten) {
  const auto json = to_json(example());
  EXPECT_EQ(json["documents"], 3);
  EXPECT_EQ(json["bytes"], 10);
  EXPECT_EQ(json["tokens"], 8);
  EXPECT_EQ(json["splits"]["valid"]["tokens"], 3);
  const Manifest read = manifest_from_json(nlohmann::json::parse(json.dump()), "m");
  EXPECT_EQ(to_json(read), json);
  EXPECT_EQ(read.tokenizer.end_token, 50256);
}

TEST(Manifest, AnySeedThatIsTakenComesBack) {
  for (const int64_t seed : {int64_t{0}, (int64_t{1} << 53) + 1, INT64_MAX}) {
    Manifest manifest = example();
    manifest.settings.seed = seed;
    const std::string text = to_json(manifest).dump();
    EXPECT_EQ(manifest_from_json(nlohmann::json::parse(text), "m").settings.seed, seed);
  }
  nlohmann::json damaged = nlohmann::json::parse(to_json(example()).dump());
  damaged["settings"]["seed"] = -1;
  EXPECT_THAT(user_error([&] { (void)manifest_from_json(damaged, "m"); }),
              HasSubstr("a seed of at least 0 as 'seed', given -1, in m"));
}

TEST(Manifest, EveryKeyThatIsMissingOrOfAnotherTypeIsNamed) {
  const nlohmann::json whole = nlohmann::json::parse(to_json(example()).dump());
  for (const char* key : {"settings", "tokenizer", "files", "sources", "duplicates"}) {
    nlohmann::json damaged = whole;
    damaged.erase(key);
    EXPECT_THAT(user_error([&] { (void)manifest_from_json(damaged, "m.json"); }),
                HasSubstr("expected '" + std::string(key) + "', given none, in m.json"));
    damaged[key] = "x";
    EXPECT_THAT(user_error([&] { (void)manifest_from_json(damaged, "m.json"); }),
                HasSubstr("m.json"));
  }
}

TEST(Manifest, NamesLeadToNoOtherFolder) {
  for (const std::string name : {"../train_0000.bin", "train_../x.bin", "train_.bin", "/etc/passwd",
                                 "valid_0000.bin", "train_1.bin.bin", ""}) {
    nlohmann::json damaged = nlohmann::json::parse(to_json(example()).dump());
    damaged["files"][0]["name"] = name;
    EXPECT_THAT(user_error([&] { (void)manifest_from_json(damaged, "m"); }),
                HasSubstr("a name like train_0000.bin"))
        << name;
  }
}

TEST(Manifest, ANewerFormatIsRefused) {
  nlohmann::json newer = nlohmann::json::parse(to_json(example()).dump());
  newer["format"] = 2;
  EXPECT_THAT(user_error([&] { (void)manifest_from_json(newer, "m"); }), HasSubstr("format"));
}

}  // namespace
}  // namespace wavroute
