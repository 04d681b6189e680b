#include "data/bpe_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "data/byte_level.h"
#include "data/byte_pair_json.h"
#include "data/split_patterns.h"
#include "data/tokenizer_kinds.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr const char* kEnd = "<|endoftext|>";
constexpr uint32_t kFirstByte = 1;  // id of a byte; before them is the end of a document
constexpr int64_t kLeastTokens = 1 + 256;
constexpr int64_t kMostTokens = int64_t{1} << 20;
constexpr size_t kMostWords = size_t{2} << 20;  // 150 MB, and 300 MB more in training
constexpr size_t kLongestWord = 256;            // bytes; what is longer is no word of a language
constexpr uint64_t kLeastCount = 2;             // of a pair that becomes a token

using Pair = std::pair<uint32_t, uint32_t>;

struct PairHash {
  size_t operator()(const Pair& pair) const {
    return std::hash<uint64_t>()((uint64_t{pair.first} << 32 | pair.second) * 0x9E3779B97F4A7C15U);
  }
};

struct Word {
  std::vector<uint32_t> ids;
  uint64_t count;
};

// How often a pair stands in all words, and in which it may.
struct PairPlaces {
  uint64_t count = 0;
  std::vector<uint32_t> words;  // places of words; may name one that has the pair no more
};

struct Candidate {
  uint64_t count;
  Pair pair;
  // On top of a std::priority_queue is the largest.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

// The ids of bytes: as their symbols are sorted.
std::vector<uint32_t> ids_of_bytes() {
  std::vector<uint32_t> sorted(256);
  for (uint32_t byte = 0; byte < sorted.size(); ++byte) sorted[byte] = byte;
  std::ranges::sort(sorted, {}, [](uint32_t byte) { return byte_symbols()[byte]; });
  std::vector<uint32_t> ids(256);
  for (uint32_t i = 0; i < sorted.size(); ++i) ids[sorted[i]] = kFirstByte + i;
  return ids;
}

class Training {
 public:
  explicit Training(const std::unordered_map<std::string, uint64_t>& counts);
  // The next pair that becomes a token; nothing where none is frequent enough.
  std::optional<Pair> next();
  void merge(const Pair& pair, uint32_t merged);

 private:
  void count(uint32_t place, int64_t sign, uint32_t only);

  std::vector<Word> words_;
  std::unordered_map<Pair, PairPlaces, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;  // counts in it may be too high: they only fall
};

constexpr uint32_t kAny = UINT32_MAX;

Training::Training(const std::unordered_map<std::string, uint64_t>& counts) {
  const std::vector<uint32_t> ids = ids_of_bytes();
  words_.reserve(counts.size());
  for (const auto& [text, number] : counts) {
    if (text.size() < 2) continue;
    Word& word = words_.emplace_back(Word{{}, number});
    for (const char byte : text) word.ids.push_back(ids[static_cast<unsigned char>(byte)]);
    count(static_cast<uint32_t>(words_.size() - 1), 1, kAny);
  }
  for (const auto& [pair, places] : pairs_) queue_.push({places.count, pair});
}

// Adds or takes away the pairs of a word. With `only`, the word is listed for pairs that have this
// id: for the others it is already.
void Training::count(uint32_t place, int64_t sign, uint32_t only) {
  const auto& [ids, number] = words_[place];
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    PairPlaces& places = pairs_[{ids[i], ids[i + 1]}];
    places.count += sign > 0 ? number : -number;
    const bool is_new = only == kAny || ids[i] == only || ids[i + 1] == only;
    if (sign > 0 && is_new && (places.words.empty() || places.words.back() != place)) {
      places.words.push_back(place);
    }
  }
}

std::optional<Pair> Training::next() {
  while (!queue_.empty()) {
    const Candidate top = queue_.top();
    queue_.pop();
    const auto found = pairs_.find(top.pair);
    if (found == pairs_.end()) continue;
    const uint64_t now = found->second.count;
    if (now == top.count && now >= kLeastCount) return top.pair;
    if (now >= kLeastCount) queue_.push({now, top.pair});
  }
  return std::nullopt;
}

void Training::merge(const Pair& pair, uint32_t merged) {
  const std::vector<uint32_t> places = std::move(pairs_[pair].words);
  std::vector<Pair> fresh;
  for (const uint32_t place : places) {
    auto& ids = words_[place].ids;
    const auto begins_here = [&](size_t i) {
      return i + 1 < ids.size() && ids[i] == pair.first && ids[i + 1] == pair.second;
    };
    size_t first = 0;
    while (first < ids.size() && !begins_here(first)) ++first;
    if (first == ids.size()) continue;
    count(place, -1, kAny);
    size_t kept = first;
    for (size_t i = first; i < ids.size(); ++i) {
      const bool is_pair = begins_here(i);
      ids[kept++] = is_pair ? merged : ids[i];
      if (is_pair) ++i;
    }
    ids.resize(kept);
    count(place, 1, merged);
    for (size_t i = 0; i + 1 < kept; ++i) {
      if (ids[i] == merged || ids[i + 1] == merged) fresh.emplace_back(ids[i], ids[i + 1]);
    }
  }
  pairs_.erase(pair);
  std::ranges::sort(fresh);
  fresh.erase(std::unique(fresh.begin(), fresh.end()), fresh.end());
  for (const Pair& next : fresh) queue_.push({pairs_[next].count, next});
}

}  // namespace

void BpeTrainer::add(std::string_view text) {
  static const CharacterReader characters;
  const MatchWord match = match_of(SplitPattern::kGpt2);
  bytes_ += text.size();
  const char* const end = text.data() + text.size();
  std::string word;
  for (const char* at = text.data(); at != end;) {
    const char* const after = match(characters, at, end);
    if (static_cast<size_t>(after - at) <= kLongestWord) {
      word.assign(at, after);
      ++counts_[word];
    }
    at = after;
  }
  if (counts_.size() > kMostWords) drop_rare();
}

void BpeTrainer::drop_rare() {
  for (uint64_t least = 2; counts_.size() > kMostWords / 2; ++least) {
    std::erase_if(counts_, [&](const auto& word) { return word.second < least; });
  }
}

void BpeTrainer::check(int64_t vocab_size) {
  if (vocab_size >= kLeastTokens && vocab_size <= kMostTokens) return;
  throw expected(fmt::format("a vocabulary of {} to {} tokens", kLeastTokens, kMostTokens),
                 vocab_size, {}, "256 bytes and the end of a document are tokens in any case");
}

BpeTrainer::Trained BpeTrainer::train(int64_t vocab_size) const {
  check(vocab_size);
  std::vector<std::string> tokens(kLeastTokens);
  tokens[0] = kEnd;
  const std::vector<uint32_t> byte_ids = ids_of_bytes();
  for (size_t byte = 0; byte < byte_ids.size(); ++byte) {
    tokens[byte_ids[byte]] = byte_symbols()[byte];
  }
  nlohmann::json vocab = nlohmann::json::object(), merges = nlohmann::json::array();
  Training training(counts_);
  std::unordered_map<std::string, uint32_t> made;  // two merges may spell one token
  while (std::ssize(tokens) < vocab_size) {
    const auto pair = training.next();
    if (!pair) break;
    const std::string &left = tokens[pair->first], &right = tokens[pair->second];
    std::string token = left + right;
    merges.push_back({left, right});
    const auto [place, is_new] = made.try_emplace(token, static_cast<uint32_t>(tokens.size()));
    training.merge(*pair, place->second);
    if (is_new) tokens.push_back(std::move(token));
  }
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  nlohmann::json added = nlohmann::json::array();
  added.push_back(added_token<nlohmann::json>(0, kEnd, /*special=*/true));
  return {byte_level_json(std::move(vocab), std::move(merges), added), std::ssize(tokens)};
}

}  // namespace wavroute
