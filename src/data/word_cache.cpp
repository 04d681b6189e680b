#include "data/word_cache.h"

#include <algorithm>
#include <cstring>

namespace wavroute {
namespace {

constexpr size_t kSlots = size_t{1} << 17;  // 3 MB; words and ids add at most as much again
constexpr size_t kMostUsed = kSlots / 2;
constexpr size_t kMostWordBytes = size_t{1} << 21;

uint64_t load(const char* from, size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, from, bytes);
  return value;
}

// Not 0. Different for words of different lengths that begin alike.
uint64_t hash_of(std::string_view word) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15U;
  uint64_t hash = word.size() * kOdd;
  const auto mix = [&](uint64_t value) {
    hash = (hash ^ value) * kOdd;
    hash ^= hash >> 32;
  };
  const char* at = word.data();
  size_t left = word.size();
  for (; left > 8; left -= 8, at += 8) mix(load(at, 8));
  mix(load(at, left));
  return hash | 1;
}

}  // namespace

WordCache::WordCache() : slots_(kSlots) {}

std::optional<std::span<const uint32_t>> WordCache::find(std::string_view word) {
  const uint64_t hash = hash_of(word);
  size_t place = (hash >> 20) & (kSlots - 1);
  for (; slots_[place].hash != 0; place = (place + 1) & (kSlots - 1)) {
    const Slot& slot = slots_[place];
    if (slot.hash == hash && slot.word_bytes == word.size() &&
        std::memcmp(words_.data() + slot.word_at, word.data(), word.size()) == 0) {
      return std::span(ids_).subspan(slot.ids_at, slot.count);
    }
  }
  free_ = place;
  free_hash_ = hash;
  return std::nullopt;
}

void WordCache::insert(std::string_view word, std::span<const uint32_t> ids) {
  if (used_ >= kMostUsed || words_.size() + word.size() > kMostWordBytes) {
    std::ranges::fill(slots_, Slot{});
    words_.clear();
    ids_.clear();
    used_ = 0;
    free_ = (free_hash_ >> 20) & (kSlots - 1);
  }
  slots_[free_] = {free_hash_, static_cast<uint32_t>(words_.size()),
                   static_cast<uint32_t>(ids_.size()), static_cast<uint16_t>(word.size()),
                   static_cast<uint16_t>(ids.size())};
  words_ += word;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++used_;
}

}  // namespace wavroute
