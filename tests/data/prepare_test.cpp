// What a prepared folder holds: every document once, on the side that its content says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/batches.h"
#include "data/shard.h"
#include "data/split.h"
#include "tests/data/bpe_json.h"
#include "tests/data/prepare_tools.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> with(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_F(PrepareTest, EveryDocumentIsInExactlyOneSplit) {
  const auto documents = numbered(300);
  options_.sources = {write("a.txt", joined(documents))};
  const Manifest manifest = prepare_here();
  const auto train = parts_of(text_of_split(SplitName::kTrain));
  const auto valid = parts_of(text_of_split(SplitName::kValid));
  EXPECT_EQ(sorted(with(train, valid)), sorted(documents));
  EXPECT_NEAR(static_cast<double>(valid.size()), 90, 30);
  EXPECT_GT(std::ssize(manifest.files), 4);  // several shards of each
  EXPECT_EQ(manifest.total().documents, 300);
  EXPECT_EQ(manifest.total(SplitName::kValid).documents, std::ssize(valid));
  EXPECT_EQ(manifest.total().bytes, std::ssize(joined(documents, "")));
  EXPECT_EQ(manifest.total().tokens, manifest.total().bytes);  // no end token for bytes
  EXPECT_NE(train, parts_of(joined(documents)));
}

TEST_F(PrepareTest, EqualDocumentsAreOnOneSideWhateverTheSeed) {
  std::vector<std::string> documents;
  for (int i = 0; i < 5; ++i) documents = with(documents, numbered(100));
  options_.sources = {write("a.txt", joined(documents))};
  std::set<std::string> before;
  for (const int64_t seed : {1, 2}) {
    options_.seed = seed;
    options_.out = folder_ / std::to_string(seed);
    const Manifest manifest = prepare_here();
    const auto train = parts_of(text_of_split(SplitName::kTrain));
    const auto valid = parts_of(text_of_split(SplitName::kValid));
    const std::set<std::string> trained(train.begin(), train.end());
    const std::set<std::string> validated(valid.begin(), valid.end());
    for (const std::string& document : validated) EXPECT_FALSE(trained.contains(document));
    EXPECT_EQ(manifest.duplicates, 400);
    EXPECT_EQ(manifest.total().documents, 500);
    if (!before.empty()) {
      EXPECT_EQ(validated, before);
    }
    before = validated;
  }
}

TEST_F(PrepareTest, DedupLeavesOutExactDuplicatesAlone) {
  const auto documents = numbered(100);
  const std::string text = joined(with(with(documents, documents), {"<0 >", "<0>"}));
  options_.sources = {write("a.txt", text), write("b.txt", text)};
  options_.dedup = true;
  const Manifest manifest = prepare_here();
  EXPECT_EQ(manifest.duplicates, 2 * 202 - 101);
  EXPECT_EQ(manifest.total().documents, 101);
  EXPECT_EQ(sorted(with(parts_of(text_of_split(SplitName::kTrain)),
                        parts_of(text_of_split(SplitName::kValid)))),
            sorted(with(documents, {"<0 >"})));
}

TEST_F(PrepareTest, ASeedAndSourcesGiveTheSameBytesWithAnyNumberOfThreads) {
  options_.sources = {write("a.txt", joined(numbered(300)))};
  prepare_here();
  const auto once = files();
  for (const int threads : {2, 3}) {
    options_.threads = threads;
    options_.out = folder_ / std::to_string(threads);
    prepare_here();
    EXPECT_EQ(files(), once);
  }
  options_.seed = 4;
  options_.out = folder_ / "other";
  prepare_here();
  EXPECT_NE(files().at("train_0000.bin"), once.at("train_0000.bin"));
}

TEST_F(PrepareTest, AnotherSeedIsAnotherOrderOfTheSameDocuments) {
  options_.sources = {write("a.txt", joined(numbered(200)))};
  prepare_here();
  const auto one = parts_of(text_of_split(SplitName::kTrain));
  options_.seed = 4;
  options_.out = folder_ / "other";
  prepare_here();
  const auto other = parts_of(text_of_split(SplitName::kTrain));
  EXPECT_NE(one, other);
  EXPECT_EQ(sorted(one), sorted(other));
}

TEST_F(PrepareTest, NothingIsForValidationWhereTheShareIsZero) {
  options_.sources = {write("a.txt", joined(numbered(50)))};
  options_.valid = 0;
  EXPECT_EQ(prepare_here().total(SplitName::kTrain).documents, 50);
  EXPECT_EQ(text_of_split(SplitName::kValid), "");
}

TEST_F(PrepareTest, DocumentsOfNothingButWhiteSpaceAreLeftOutAndCounted) {
  options_.sources = {write("a.txt", joined({"<1>", "", " \n", "<2>", ""}))};
  options_.valid = 0;
  const Manifest manifest = prepare_here();
  EXPECT_EQ(manifest.empty, 3);
  EXPECT_EQ(manifest.total().documents, 2);
}

TEST_F(PrepareTest, InvalidUtf8IsKeptAsBytesAndCounted) {
  options_.sources = {write("a.txt",
                            "<\xff"
                            "a\xE2\x82>")};
  options_.valid = 0;
  EXPECT_EQ(prepare_here().invalid_bytes, 3);
  EXPECT_EQ(text_of_split(SplitName::kTrain),
            "<\xff"
            "a\xE2\x82>");
  options_.out = folder_ / "chars";
  options_.tokenizer = "chars";
  EXPECT_THAT(error_here(), HasSubstr("expected UTF-8, given the byte 0xFF, at byte 1 of"));
  EXPECT_FALSE(std::filesystem::exists(options_.out));
}

TEST_F(PrepareTest, CharactersComeFromAllSources) {
  options_.sources = {write("a.txt", "<abc>"), write("b.txt", "<\xE2\x82\xAC>")};
  options_.tokenizer = "chars";
  options_.valid = 0;
  const Manifest manifest = prepare_here();
  EXPECT_EQ(manifest.tokenizer.vocab_size, 6);
  EXPECT_EQ(manifest.tokenizer.sha256, make_chars_tokenizer("<abc>\xE2\x82\xAC")->hash());
  EXPECT_EQ(manifest.total().tokens, 5 + 3);
}

TEST_F(PrepareTest, ATokenizerIsTakenFromItsFileAndAnUnknownCharacterIsNamed) {
  options_.tokenizer = write("t.json", make_chars_tokenizer("<ab>\n")->to_json());
  options_.sources = {write("a.txt", "<abba><|endoftext|><abcba>")};
  options_.valid = 0;
  EXPECT_THAT(error_here(), HasSubstr("U+0063, at byte 22 of"));
  options_.sources = {write("a.txt", "<abba>")};
  EXPECT_EQ(prepare_here().tokenizer.name, "chars");
}

// A vocabulary of a few bytes and no token for others.
TEST_F(PrepareTest, AByteThatATokenizerCannotSpellIsNamedBeforeMoreIsRead) {
  nlohmann::json json = testing::byte_level_tokenizer({"a b"});
  nlohmann::json& vocab = json["model"]["vocab"];
  vocab.erase("\u00c3");  // the symbol of the byte 0xC3
  vocab["\u4e00"] = 0xC3;
  options_.tokenizer = write("poor.json", json.dump());
  const std::string last = write("b.txt", "<|endoftext|>");
  options_.sources = {write("a.txt", "abab<|endoftext|>ab \u00e9"), last};
  const std::string error = error_here();
  EXPECT_THAT(error, HasSubstr("0xC3"));
  EXPECT_THAT(error, HasSubstr("at byte 20 of " + options_.sources[0]));
  EXPECT_FALSE(std::filesystem::exists(options_.out));
  options_.sources = {write("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"ab \u00e9\"}\n")};
  EXPECT_THAT(error_here(), HasSubstr("at byte 3 of " + options_.sources[0] + ":2"));
  // With an unknown token it has ids for every text.
  json["model"]["unk_token"] = "a";
  options_.tokenizer = write("poor.json", json.dump());
  EXPECT_EQ(prepare_here().tokenizer.name, "bpe");
}

TEST_F(PrepareTest, WhatIsMadeIsNoSource) {
  std::filesystem::create_directories(folder_ / "texts/more");
  write("texts/a.txt", "one");
  write("texts/more/b.txt", "two");
  options_.sources = {(folder_ / "texts").string()};
  options_.valid = 0;
  options_.out = folder_ / "texts/more/corpus";
  EXPECT_EQ(prepare_here().sources.size(), 2U);
  options_.resume = true;
  EXPECT_EQ(prepare_here().sources.size(), 2U);
  // Under other names.
  std::filesystem::create_directory_symlink(folder_ / "texts", folder_ / "link");
  options_.sources = {(folder_ / "link/./more/..").string()};
  options_.out = folder_ / "texts/more/../more/corpus/";
  EXPECT_THAT(error_here(), HasSubstr("another sources"));  // their names
  for (const char* source : {"texts/more/corpus", "texts/more/corpus/train_0000.bin"}) {
    options_.sources = {(folder_ / source).string()};
    EXPECT_THAT(error_here(), HasSubstr("sources outside of what is made of them"));
  }
  options_.out = folder_ / "link/more";
  options_.sources = {(folder_ / "texts/more/b.txt").string()};
  EXPECT_THAT(error_here(), HasSubstr("sources outside of what is made of them"));
}

// As a tokenizer with an end token does.
class Ended : public Tokenizer {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "ended"; }
  [[nodiscard]] int64_t vocab_size() const noexcept override { return 257; }
  [[nodiscard]] std::string_view token_bytes(uint32_t id) const override {
    return id == 256 ? "<end>" : bytes_->token_bytes(id);
  }
  [[nodiscard]] std::vector<uint32_t> encode(std::string_view text, std::string_view where,
                                             uint64_t offset) const override {
    return bytes_->encode(text, where, offset);
  }
  [[nodiscard]] std::string to_json() const override { return "{}"; }
  [[nodiscard]] std::optional<uint32_t> end_token() const override { return 256; }

 private:
  std::shared_ptr<const Tokenizer> bytes_ = make_bytes_tokenizer();
};

TEST_F(PrepareTest, TheEndTokenFollowsEveryDocumentAndScoresNoBytes) {
  const Ended tokenizer;
  ThreadPool pool(1);
  const auto path = folder_ / "ended.bin";
  const ManifestFile file = write_shard(path, {"ab", "", "c"}, tokenizer, pool);
  const TokenView tokens = open_token_file(path, tokenizer);
  EXPECT_EQ(all_tokens(tokens), (std::vector<int64_t>{'a', 'b', 256, 256, 'c', 256}));
  EXPECT_EQ(file.counts, (TextCounts{3, 3, 6}));
  EXPECT_EQ(EvalWindows(tokens, 8, 0).scored_bytes(tokenizer), 2);  // the first is not scored
  EXPECT_EQ(text_bytes(tokens, tokenizer), 3);
}

// The peak of memory grows with the bounds, not with the text.
TEST_F(PrepareTest, MemoryIsBoundedWhateverTheLengthOfTheText) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer keeps memory that was freed";
#endif
  constexpr int64_t kMegabyte = 1 << 20;
  const auto peak = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024;
  };
  {
    std::string part;
    for (int i = 0; i < 2000; ++i) part += std::string(500, static_cast<char>('a' + i % 26)) + "\n";
    std::ofstream file(folder_ / "a.txt");
    for (int i = 0; i < 50; ++i) file << i << part;
  }
  options_.sources = {(folder_ / "a.txt").string()};
  options_.separator = "\n";
  options_.buffer_bytes = options_.shard_bytes = kMegabyte;
  options_.state_bytes = 16 * kMegabyte;
  const int64_t before = peak();
  const Manifest manifest = prepare_here();
  EXPECT_GT(manifest.total().bytes, 50'000'000);
  EXPECT_LT(peak() - before, 40 * kMegabyte);
  // Equal documents are in one shard: there, too, they take memory once.
  EXPECT_GT(manifest.duplicates, 95'000);
}

// A document takes memory beside its text.
TEST_F(PrepareTest, VeryShortDocumentsHaveMoreShards) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += std::to_string(i) + "\n";
  options_.sources = {write("a.txt", text)};
  options_.separator = "\n";
  options_.valid = 0;
  options_.shard_bytes = 4000;  // of 190 bytes in 100 documents
  EXPECT_EQ(prepare_here().files.size(), 4);
}

TEST_F(PrepareTest, WrongSourcesAreRefusedAndLeaveNothingBehind) {
  const std::string text = write("a.txt", joined(numbered(20)));
  const auto refused = [&](std::vector<std::string> sources) {
    options_.sources = std::move(sources);
    std::string error = error_here();
    EXPECT_FALSE(std::filesystem::exists(options_.out)) << error;
    return error;
  };
  EXPECT_THAT(refused({(folder_ / "b.txt").string()}),
              HasSubstr("the nearest name there is a.txt"));
  EXPECT_THAT(refused({"-", "-"}), HasSubstr("standard input once"));
  EXPECT_THAT(refused({write("e.txt", " \n")}), HasSubstr("documents to train on, given none"));
  EXPECT_THAT(refused({write("z.bin", std::string("PK\x03\x04 and more"))}),
              HasSubstr("a zip archive"));
  std::filesystem::create_directory(folder_ / "empty");
  EXPECT_THAT(refused({(folder_ / "empty").string()}), HasSubstr("files with text, given none"));
  (void)write("folder/b\xFF.txt", "text");
  EXPECT_THAT(refused({(folder_ / "folder").string()}), HasSubstr("a source's name in UTF-8"));
  EXPECT_THAT(refused({text, write("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\n")}),
              HasSubstr("bad.jsonl:2"));
  options_.valid = 0.9999999;
  EXPECT_THAT(refused({text}), HasSubstr("all for validation"));
  options_.valid = 0.3;
  options_.tokenizer = (folder_ / "no.json").string();
  EXPECT_THAT(refused({text}), HasSubstr("no.json"));
  options_.tokenizer = "bytes";
  options_.recipe = "tinystory";
  EXPECT_THAT(refused({text}), HasSubstr("tinystories"));
}

TEST_F(PrepareTest, AFolderWithAnythingElseIsLeftAlone) {
  options_.sources = {write("a.txt", joined(numbered(20)))};
  write("out/mine.txt", "mine");
  EXPECT_THAT(error_here(), HasSubstr("one with mine.txt"));
  EXPECT_THAT(testing::names_in(options_.out), ::testing::ElementsAre("mine.txt"));
  options_.resume = true;
  EXPECT_THAT(error_here(), HasSubstr("one with mine.txt"));
  options_.resume = false;
  options_.out = folder_ / "fine";
  prepare_here();
  const auto before = files();
  EXPECT_THAT(error_here(), HasSubstr("one with prepared text"));
  options_.resume = true;
  prepare_here();  // complete already
  EXPECT_EQ(files(), before);
  options_.seed = 9;
  EXPECT_THAT(error_here(), HasSubstr("another --seed"));
  EXPECT_EQ(files(), before);
}

TEST_F(PrepareTest, AFolderThatAnotherProcessPreparesIsRefused) {
  options_.sources = {write("a.txt", joined(numbered(20)))};
  std::filesystem::create_directory(options_.out);
  const FileLock other(options_.out);
  options_.resume = true;
  EXPECT_THAT(error_here(), HasSubstr("out"));
  EXPECT_FALSE(std::filesystem::exists(options_.out / ".wavroute-prepare"));
}

TEST_F(PrepareTest, AFolderWithoutAManifestIsNoCorpus) {
  write("out/train_0000.bin", "x");
  EXPECT_THAT(user_error([&] { (void)open_prepared(options_.out); }),
              HasSubstr("there is no manifest.json"));
}

}  // namespace
}  // namespace wavroute
