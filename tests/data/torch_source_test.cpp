#include "data/torch_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/philox.h"
#include "data/corpus.h"
#include "tests/data/scratch.h"

namespace wavroute {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TorchSourceTree : public ScratchTest {
 protected:
  void add(const std::string& path, std::string_view text) { write("wheel/" + path, text); }
  [[nodiscard]] std::filesystem::path root() const { return folder_ / "wheel" / "torch"; }

  // Makes `count` files of distinct text, in the order that `numbers` gives.
  void add_numbered(const std::vector<int>& numbers) {
    for (const int i : numbers) add(numbered(i), text_of(i));
  }
  static std::string numbered(int i) { return "torch/nn/file" + std::to_string(i) + ".py"; }
  static std::string text_of(int i) { return "x = " + std::to_string(i) + "\n"; }
};

std::vector<int> up_to(int count) {
  std::vector<int> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// The paths that the separator lines name, in order.
std::vector<std::string> paths_in(const std::string& text) {
  constexpr std::string_view kMark = "# file: ";
  std::vector<std::string> paths;
  for (size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark, at + 1)) {
    const size_t begin = at + kMark.size();
    paths.push_back(text.substr(begin, text.find('\n', begin) - begin));
  }
  return paths;
}

TEST_F(TorchSourceTree, SplitsByTheHashOfThePathAndSortsByPath) {
  add_numbered(up_to(200));
  const TorchSource source = read_torch_source(root(), 0);
  std::string train, valid;
  std::vector<std::string> paths;
  std::vector<int> numbers = up_to(200);
  std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return numbered(a) < numbered(b); });
  for (const int i : numbers) {
    const std::string path = numbered(i);
    (fnv1a(path) % 20 == 0 ? valid : train) += "# file: " + path + "\n" + text_of(i);
  }
  EXPECT_EQ(source.train, train);
  EXPECT_EQ(source.valid, valid);
  EXPECT_EQ(source.train_files + source.valid_files, 200);
  EXPECT_GT(source.valid_files, 2);  // 10 expected
  EXPECT_LT(source.valid_files, 25);
}

TEST_F(TorchSourceTree, DoesNotDependOnTheOrderInWhichTheFilesWereMade) {
  std::vector<int> numbers = up_to(100);
  add_numbered(numbers);
  const TorchSource first = read_torch_source(root(), 0);
  std::filesystem::remove_all(root());
  std::reverse(numbers.begin(), numbers.end());
  add_numbered(numbers);
  const TorchSource second = read_torch_source(root(), 0);
  EXPECT_EQ(first.train, second.train);
  EXPECT_EQ(first.valid, second.valid);
}

TEST_F(TorchSourceTree, LeavesOutVersionFilesDuplicatesAndWhatIsNoText) {
  add_numbered(up_to(100));
  const TorchSource before = read_torch_source(root(), 0);
  add("torch/version.py", "left_out = 1\n");
  add("torch/nn/version.py", "left_out = 2\n");
  add("torch/utils/_version.py", "left_out = 3\n");
  add("torch/utils/torch_version.py", "left_out = 4\n");
  add("torch/zzz/a.py", "left_out = 5\n");  // not in the list of folders
  add("torch/nn/a.pyi", "left_out = 6\n");  // not Python source
  add("torch/nn/empty.py", "");
  add("torch/nn/latin.py", "left_out = '\xE9'\n");  // not UTF-8
  add("torch/utils/copy.py", text_of(7));           // duplicate: torch/nn/file7.py comes first
  const TorchSource after = read_torch_source(root(), 0);
  EXPECT_EQ(before.train, after.train);
  EXPECT_EQ(before.valid, after.valid);
}

TEST_F(TorchSourceTree, AFileWithoutALineEndGetsOne) {
  add_numbered(up_to(60));
  add("torch/autograd/a.py", "no_end = 1");
  const TorchSource source = read_torch_source(root(), 0);
  EXPECT_THAT(source.train + source.valid,
              HasSubstr("# file: torch/autograd/a.py\nno_end = 1\n# file: torch/nn/file"));
}

TEST_F(TorchSourceTree, ASliceIsVariedInPathOrderAndKeepsTheValidationSplit) {
  add_numbered(up_to(400));
  const TorchSource whole = read_torch_source(root(), 0);
  const TorchSource slice = read_torch_source(root(), 2000);
  EXPECT_EQ(slice.train.size(), 2000U);
  EXPECT_EQ(slice.valid, whole.valid);
  const auto paths = paths_in(slice.train), all = paths_in(whole.train);
  EXPECT_TRUE(std::is_sorted(paths.begin(), paths.end()));
  const auto place = [&](const std::string& path) {
    return std::find(all.begin(), all.end(), path) - all.begin();
  };
  EXPECT_LT(place(paths.front()), std::ssize(all) / 4);  // from the first quarter to the last
  EXPECT_GT(place(paths.back()), std::ssize(all) * 3 / 4);
  EXPECT_EQ(read_torch_source(root(), 1 << 30).train, whole.train);
}

TEST_F(TorchSourceTree, ALargerSliceHoldsTheFilesOfASmallerOne) {
  add_numbered(up_to(400));
  const auto small = paths_in(read_torch_source(root(), 2000).train);
  const auto large = paths_in(read_torch_source(root(), 4000).train);
  for (const std::string& path : small) {
    if (!path.ends_with(".py")) continue;  // the slice may end inside a separator line
    EXPECT_THAT(large, ::testing::Contains(path));
  }
}

TEST_F(TorchSourceTree, AFolderWithoutTorchIsAnErrorThatNamesIt) {
  EXPECT_THAT(user_error([&] { (void)read_torch_source(folder_ / "nothing", 0); }),
              HasSubstr("nothing"));
}

TEST_F(TorchSourceTree, TheRootComesFromTheEnvironment) {
  setenv("WAVROUTE_TORCH_ROOT", root().c_str(), 1);
  EXPECT_EQ(find_torch_root(), root());
}

TEST_F(TorchSourceTree, TheCorpusHasBothSplitsAndTheirHashes) {
  add_numbered(up_to(200));
  setenv("WAVROUTE_TORCH_ROOT", root().c_str(), 1);
  const TorchSource source = read_torch_source(root(), 0);
  const Corpus corpus = open_corpus(DataConfig{}, 16);
  EXPECT_EQ(corpus.tokenizer->name(), "bytes");
  EXPECT_EQ(corpus.train_sha256, sha256_hex(source.train));
  EXPECT_EQ(corpus.valid_sha256, sha256_hex(source.valid));
  EXPECT_THAT(corpus.description, HasSubstr(corpus.train_sha256));
  EXPECT_THAT(corpus.description, HasSubstr(corpus.valid_sha256));
  EXPECT_EQ(all_tokens(corpus.train).size(), source.train.size());
  EXPECT_EQ(corpus.valid_bytes_per_token, 1.0);
}

TEST_F(TorchSourceTree, IsTextWhateverItServesFor) {
  add_numbered(up_to(200));
  setenv("WAVROUTE_TORCH_ROOT", root().c_str(), 1);
  const auto tokenizer = make_bytes_tokenizer();
  for (const DataFormat format : {DataFormat::kTokens16, DataFormat::kTokens32}) {
    DataConfig trained, validated;
    trained.format = validated.format = format;
    validated.train = write("ids.bin", std::string(4000, '\0'));
    validated.valid = "torch-source";
    for (const std::string& what :
         {user_error([&] { (void)open_corpus(trained, 16); }),
          user_error([&] { (void)open_corpus(validated, 16); }),
          user_error([&] { (void)open_tokens("torch-source", *tokenizer, format); })}) {
      EXPECT_THAT(what, HasSubstr("for the format " + to_string(format))) << what;
    }
  }
  for (const DataFormat format : {DataFormat::kAuto, DataFormat::kText, DataFormat::kBytes}) {
    EXPECT_GT(open_tokens("torch-source", *tokenizer, format).size(), 0) << to_string(format);
  }
}

// A character that only one validation file has doesn't make "chars" unusable.
TEST_F(TorchSourceTree, TheVocabularyOfCharsIsThatOfTheWholeSource) {
  add_numbered(up_to(200));
  int valid_file = 0;
  while (fnv1a(numbered(valid_file)) % 20 != 0) ++valid_file;
  add(numbered(valid_file), "x = '\xE2\x82\xAC'\n");
  setenv("WAVROUTE_TORCH_ROOT", root().c_str(), 1);
  DataConfig data;
  data.tokenizer = TokenizerKind::kChars;
  const Corpus whole = open_corpus(data, 16);
  data.max_bytes = 500;
  const Corpus slice = open_corpus(data, 16);
  EXPECT_EQ(slice.tokenizer->hash(), whole.tokenizer->hash());
  EXPECT_EQ(slice.train.size(), 500);
}

}  // namespace
}  // namespace wavroute
