// Training and evaluation on a folder that was prepared.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/batches.h"
#include "data/corpus.h"
#include "data/file_info.h"
#include "tests/data/prepare_tools.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

class PreparedTest : public PrepareTest {
 protected:
  PreparedTest() {
    options_.sources = {write("a.txt", joined(numbered(300)))};
    manifest_ = prepare_here();
    data_.train = options_.out.string();
  }
  std::string refused() {
    return testing::message_of<UserError>([&] { (void)open_corpus(data_, 8); });
  }

  Manifest manifest_;
  DataConfig data_;
};

TEST_F(PreparedTest, AllShardsAreOneSequence) {
  ASSERT_GT(std::ranges::count(manifest_.files, SplitName::kTrain, &ManifestFile::split), 2);
  const Corpus corpus = open_corpus(data_, 8);
  std::vector<int64_t> expected;
  for (const ManifestFile& file : manifest_.files) {
    if (file.split != SplitName::kTrain) continue;
    const auto tokens = all_tokens(open_token_file(options_.out / file.name, *corpus.tokenizer));
    expected.insert(expected.end(), tokens.begin(), tokens.end());
  }
  EXPECT_EQ(all_tokens(corpus.train), expected);
  EXPECT_EQ(corpus.train_bytes, manifest_.total(SplitName::kTrain).bytes);
  EXPECT_EQ(corpus.valid.size(), manifest_.total(SplitName::kValid).tokens);
  // Slices and windows across the ends of shards.
  const TokenView middle = corpus.train.slice(900, 500);
  EXPECT_EQ(all_tokens(middle),
            (std::vector<int64_t>(expected.begin() + 900, expected.begin() + 1400)));
  EXPECT_EQ(middle.at(499), expected[1399]);
  const TrainingBatches batches(corpus.train, 8, 4, 1);
  EXPECT_EQ(batches.count(), std::ssize(expected) / 9);
}

TEST_F(PreparedTest, TheCorpusIsKnownByTheChecksumsOfItsShards) {
  const Corpus corpus = open_corpus(data_, 8);
  std::filesystem::rename(options_.out, folder_ / "moved");
  data_.train = (folder_ / "moved").string();
  EXPECT_EQ(open_corpus(data_, 8).train_sha256, corpus.train_sha256);
  // Another shard in the place of one.
  std::filesystem::copy_file(folder_ / "moved/train_0001.bin", folder_ / "moved/train_0000.bin",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(refused(), HasSubstr("train_0000.bin"));
}

TEST_F(PreparedTest, ItsTokenizerIsTheFoldersOwn) {
  data_.tokenizer = TokenizerKind::kChars;
  EXPECT_THAT(refused(), HasSubstr("prepared with the tokenizer \"chars\""));
  data_.tokenizer = TokenizerKind::kFile;
  data_.tokenizer_path = (options_.out / "tokenizer.json").string();
  EXPECT_EQ(open_corpus(data_, 8).tokenizer->name(), "bytes");
  data_.tokenizer_path = write("other.json", make_chars_tokenizer("<ab>")->to_json());
  EXPECT_THAT(refused(), HasSubstr("with another"));
  EXPECT_THAT(testing::message_of<UserError>(
                  [&] { (void)open_tokens(options_.out.string(), *make_chars_tokenizer("<ab>")); }),
              HasSubstr("with another"));
}

TEST_F(PreparedTest, ValidationComesFromItsSplitOrAnotherText) {
  EXPECT_EQ(open_tokens(data_.train, *make_bytes_tokenizer()).size(),
            manifest_.total(SplitName::kValid).tokens);
  data_.valid = write("v.txt", std::string(100, 'v'));
  EXPECT_EQ(open_corpus(data_, 8).valid.size(), 100);
  options_.out = folder_ / "no_valid";
  options_.valid = 0;
  prepare_here();
  data_.train = options_.out.string();
  EXPECT_EQ(open_corpus(data_, 8).valid.size(), 100);
  data_.valid.clear();
  EXPECT_THAT(refused(), HasSubstr("set data.valid to another text"));
}

TEST_F(PreparedTest, ALimitTakesTheBeginning) {
  const Corpus whole = open_corpus(data_, 8);
  data_.max_bytes = 1500;
  const Corpus limited = open_corpus(data_, 8);
  EXPECT_EQ(limited.train.size(), 1500);
  EXPECT_EQ(limited.train_bytes, 1500);
  EXPECT_NE(limited.train_sha256, whole.train_sha256);
}

TEST_F(PreparedTest, AnotherFormatOrAnUnfinishedFolderIsRefused) {
  data_.format = DataFormat::kTokens16;
  EXPECT_THAT(refused(), HasSubstr("the format auto"));
  data_.format = DataFormat::kAuto;
  std::filesystem::remove(options_.out / "manifest.json");
  EXPECT_THAT(refused(), HasSubstr("there is no manifest.json"));
}

TEST_F(PreparedTest, InfoDescribesFoldersTokenFilesAndTexts) {
  const FileInfoOptions options = {{}, "", "python3"};
  const auto folder = file_info(data_.train, options);
  EXPECT_EQ(folder["kind"], "prepared");
  EXPECT_EQ(folder["documents"], 300);
  EXPECT_EQ(folder["tokenizer"]["name"], "bytes");
  EXPECT_EQ(folder["text"].get<std::string>().front(), '<');
  const auto shard = file_info((options_.out / "train_0000.bin").string(), options);
  EXPECT_EQ(shard["kind"], "tokens");
  EXPECT_EQ(shard["width"], 16);
  EXPECT_EQ(shard["tokens"], manifest_.files[0].counts.tokens);
  EXPECT_EQ(shard["tokenizer"], "bytes");
  EXPECT_EQ(shard["text"], folder["text"]);
  const auto text = file_info(options_.sources[0], options);
  EXPECT_EQ(text["kind"], "text");
  EXPECT_EQ(text["documents"], 300);
  EXPECT_EQ(text["bytes"], manifest_.total().bytes);
  EXPECT_EQ(text["sha256"], manifest_.sources[0].sha256);
  EXPECT_THAT(file_info_text(text), HasSubstr("documents        300\n"));
}

TEST_F(PreparedTest, InfoNamesRawIdsWithTheirWidth) {
  std::string raw, wide;
  for (int i = 0; i < 1000; ++i) {
    raw += {static_cast<char>(i % 251), static_cast<char>(1 + i % 7)};
    wide += {static_cast<char>(i % 251), static_cast<char>(i % 7), '\0', '\0'};
  }
  const auto refused_info = [&](const std::string& content) {
    return testing::message_of<UserError>([&] {
      (void)file_info(write("ids", content), {{}, "", "python3"});
    });
  };
  EXPECT_THAT(refused_info(raw), HasSubstr("what looks like 16-bit token ids"));
  EXPECT_THAT(refused_info(wide), HasSubstr("what looks like 32-bit token ids"));
  EXPECT_THAT(refused_info(raw), HasSubstr("tokens16"));
}

}  // namespace
}  // namespace wavroute
