// A preparation that is ended anywhere goes on to the same bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/spill.h"
#include "tests/data/prepare_tools.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;

struct Killed {};

class ResumeTest : public PrepareTest {
 protected:
  ResumeTest() {
    std::string rows;
    for (const std::string& document : numbered(80)) rows += R"({"text": ")" + document + "\"}\n";
    options_.sources = {write("a.txt", joined(numbered(120))), write("b.jsonl", rows),
                        write("c.txt", joined(numbered(60)))};
    options_.tokenizer = "chars";
  }

  // How often progress is reported in a run without a break.
  int steps() {
    int count = 0;
    (void)prepare(options_, [&](const auto&) {
      ++count;
      return true;
    });
    return count;
  }

  // Ends at the given call: by a kill, which saves nothing, or a stop.
  void end_at(int step, bool kill) {
    int count = 0;
    const auto at_step = [&](const auto&) {
      if (++count <= step) return true;
      if (kill) throw Killed{};
      return false;
    };
    if (kill) {
      EXPECT_THROW((void)prepare(options_, at_step), Killed);
    } else {
      EXPECT_FALSE(prepare(options_, at_step).has_value());
    }
  }
};

TEST_F(ResumeTest, TheBytesAreThoseOfARunWithoutABreak) {
  const int count = steps();
  ASSERT_GT(count, 200);
  const auto whole = files();
  for (int step = 0; step < count; step += 19) {
    options_.out = folder_ / ("resumed" + std::to_string(step));
    options_.resume = false;
    end_at(step, step % 2 == 0);
    EXPECT_FALSE(std::filesystem::exists(options_.out / "manifest.json"));
    options_.resume = true;
    prepare_here();
    ASSERT_EQ(files(), whole) << "ended at " << step;
  }
}

TEST_F(ResumeTest, AStateOfAnEarlierVersionGoesOn) {
  const int count = steps();
  options_.out = folder_ / "resumed";
  end_at(count / 2, /*kill=*/false);
  const auto state = options_.out / ".wavroute-prepare/state.json";
  nlohmann::json earlier = nlohmann::json::parse(testing::get(state));
  ASSERT_EQ(earlier.erase("text_documents"), 1);
  testing::put(state, earlier.dump());
  options_.resume = true;
  EXPECT_EQ(prepare_here().total().documents, 260);
}

TEST_F(ResumeTest, ItMayBeEndedAgainAndAgain) {
  (void)steps();
  const auto whole = files();
  options_.out = folder_ / "resumed";
  options_.resume = true;
  for (int step = 0; step < 40; ++step) end_at(step % 5, step % 2 == 0);
  prepare_here();
  EXPECT_EQ(files(), whole);
}

TEST_F(ResumeTest, ABreakBetweenTheShardsAndTheManifestLosesNothing) {
  const int count = steps();
  const auto whole = files();
  options_.out = folder_ / "resumed";
  end_at(count - 1, /*kill=*/true);
  // As a kill while files are moved to their place.
  const auto work = options_.out / ".wavroute-prepare";
  std::filesystem::rename(work / "tokenizer.json", options_.out / "tokenizer.json");
  std::filesystem::rename(work / "train_0000.bin", options_.out / "train_0000.bin");
  EXPECT_THAT(user_error([&] { (void)open_prepared(options_.out); }), HasSubstr("isn't complete"));
  options_.resume = true;
  prepare_here();
  EXPECT_EQ(files(), whole);
}

// What is left of the hidden folder then may be any part of it.
TEST_F(ResumeTest, ABreakWhileTheHiddenFolderIsRemovedLosesNothing) {
  const int count = steps();
  const auto whole = files();
  const auto work = options_.out / ".wavroute-prepare", kept = folder_ / "kept";
  options_.out = folder_ / "other";
  end_at(count - 1, /*kill=*/true);
  std::filesystem::rename(options_.out / ".wavroute-prepare", kept);
  std::filesystem::remove(kept / "documents");
  options_.out = folder_ / "out";
  for (const char* file : {"state.json", "tokenizer.json"}) {
    std::filesystem::create_directory(work);
    std::filesystem::copy_file(kept / file, work / file);
    EXPECT_EQ(open_prepared(options_.out).manifest.total().documents, 260);
    options_.resume = false;
    EXPECT_THAT(error_here(), HasSubstr("one with prepared text"));
    options_.resume = true;
    EXPECT_EQ(prepare_here().total().documents, 260);
    EXPECT_EQ(files(), whole) << file;
  }
}

TEST_F(ResumeTest, AStopIsHeardInTheMidstOfAShardToo) {
  (void)steps();
  const auto whole = files();
  int asked = 0, until = 0;
  options_.is_stopped = [&] { return ++asked > until; };
  options_.resume = true;
  options_.out = folder_ / "resumed";
  int stops_in_shards = 0;
  for (;;) {
    asked = 0;
    ++until;
    bool is_writing = false;
    const auto note_phase = [&](const PrepareProgress& progress) {
      is_writing = progress.phase == PrepareProgress::Phase::kWrite;
      return true;
    };
    if (prepare(options_, note_phase)) break;
    stops_in_shards += is_writing ? 1 : 0;
  }
  EXPECT_GE(stops_in_shards, 1);
  options_.is_stopped = {};
  EXPECT_EQ(files(), whole);
}

TEST_F(ResumeTest, ProgressCountsWhatWasDoneBeforeTheBreak) {
  std::vector<PrepareProgress> all;
  (void)prepare(options_, [&](const PrepareProgress& progress) {
    all.push_back(progress);
    return true;
  });
  options_.out = folder_ / "resumed";
  options_.resume = true;
  // In the second source, and behind the first shard.
  const auto is_second = [&](const PrepareProgress& p) { return p.documents == 150; };
  const auto is_written = [](const PrepareProgress& p) {
    return p.phase == PrepareProgress::Phase::kWrite && p.done > 0;
  };
  for (const auto step : {std::ranges::find_if(all, is_second) - all.begin(),
                          std::ranges::find_if(all, is_written) - all.begin()}) {
    end_at(static_cast<int>(step), /*kill=*/false);
    std::vector<PrepareProgress> rest;
    (void)prepare(options_, [&](const PrepareProgress& progress) {
      rest.push_back(progress);
      return rest.size() < 2;
    });
    const PrepareProgress& before = all[static_cast<size_t>(step)];
    ASSERT_FALSE(rest.empty());
    EXPECT_EQ(rest.front().phase, before.phase);
    EXPECT_EQ(rest.front().total, before.total);
    EXPECT_GE(rest.front().documents, before.documents);
    // A source that was being read begins again.
    const uint64_t first = std::filesystem::file_size(options_.sources.front());
    EXPECT_GE(rest.front().done,
              before.phase == PrepareProgress::Phase::kRead ? first : before.done);
    std::filesystem::remove_all(options_.out);
  }
}

TEST_F(ResumeTest, WithoutResumeAnUnfinishedFolderIsRefusedAndKept) {
  end_at(100, /*kill=*/true);
  EXPECT_THAT(error_here(), HasSubstr("--resume auto goes on"));
  EXPECT_TRUE(std::filesystem::exists(options_.out / ".wavroute-prepare"));
}

TEST_F(ResumeTest, OtherSourcesOrSettingsAreRefused) {
  end_at(150, /*kill=*/true);
  options_.resume = true;
  options_.valid = 0.2;
  options_.dedup = true;
  EXPECT_THAT(error_here(), HasSubstr("another --valid, --dedup"));
  options_.valid = 0.3;
  options_.dedup = false;
  options_.tokenizer = "bytes";
  EXPECT_THAT(error_here(), HasSubstr("another --tokenizer"));
  options_.tokenizer = "chars";
  const std::string rows = testing::get(folder_ / "b.jsonl");
  write("b.jsonl", rows + "\n");
  EXPECT_THAT(error_here(), HasSubstr("another sources"));
  // Of the same size, where it has been read already.
  std::string changed = rows;
  changed[changed.find("<1a")] = '[';
  write("b.jsonl", changed);
  EXPECT_THAT(error_here(), HasSubstr("read before the break, given another, at"));
  write("b.jsonl", rows);
  prepare_here();
}

TEST_F(ResumeTest, ADamagedSpillFileIsRefused) {
  end_at(150, /*kill=*/true);
  options_.resume = true;
  const auto spill = options_.out / ".wavroute-prepare" / "documents";
  std::filesystem::resize_file(spill, 10);
  EXPECT_THAT(error_here(), HasSubstr("given 10 of"));
}

TEST_F(ResumeTest, ASpillFileGivesBackWhatWasAddedInItsOrder) {
  const auto path = folder_ / "spill";
  const auto all = [](const SpillFile& spill, uint32_t bucket) {
    std::string text;
    spill.read(bucket, [&](const DocumentHash& hash, std::string_view document) {
      EXPECT_EQ(hash, hash_document(document));
      text += std::string(document) + ";";
    });
    return text;
  };
  uint64_t length = 0;
  const std::string large(3 << 20, 'x');
  {
    SpillFile spill(path, 2, 0, 10);
    for (const std::string text : {"a", "", "b"}) spill.add(1, hash_document(text), text);
    spill.add(1, hash_document(large), large);
    length = spill.flush(true);
    spill.add(0, hash_document("lost"), "lost");
    (void)spill.flush(false);
  }
  SpillFile spill(path, 2, length, 10);
  spill.add(1, hash_document("c"), "c");
  (void)spill.flush(false);
  EXPECT_EQ(all(spill, 0), "");
  EXPECT_EQ(all(spill, 1), "a;;b;" + large + ";c;");
}

}  // namespace
}  // namespace wavroute
