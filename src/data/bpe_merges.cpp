#include "data/bpe_merges.h"

#include <algorithm>
#include <array>
#include <bit>

namespace wavroute {
namespace {

constexpr size_t kShort = 32;  // symbols up to which looking at all pairs is fastest

uint64_t pair_of(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

// std's heaps have the largest element on top.
bool comes_later(const BpeMerges::Scratch::Candidate& a, const BpeMerges::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.place > b.place;
}

}  // namespace

BpeMerges::BpeMerges(std::span<const BpeMerge> merges) {
  const size_t slots = std::bit_ceil(2 * merges.size() + 2);  // at most half full
  slots_.resize(slots);
  shift_ = 64U - static_cast<unsigned>(std::countr_zero(slots));
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right, merged] = merges[rank];
    const uint64_t pair = pair_of(left, right);
    size_t place = place_of(pair);
    while (slots_[place].pair != UINT64_MAX && slots_[place].pair != pair) {
      place = (place + 1) & (slots - 1);
    }
    slots_[place] = {pair, static_cast<uint32_t>(rank), merged};
  }
}

size_t BpeMerges::place_of(uint64_t pair) const {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15U;
  return static_cast<size_t>((pair ^ (pair >> 29)) * kOdd >> shift_);
}

const BpeMerges::Slot* BpeMerges::find(uint32_t left, uint32_t right) const {
  const uint64_t pair = pair_of(left, right);
  for (size_t place = place_of(pair);; place = (place + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[place];
    if (slot.pair == pair) return &slot;
    if (slot.pair == UINT64_MAX) return nullptr;
  }
}

void BpeMerges::apply(std::vector<uint32_t>& ids, Scratch& scratch) const {
  if (ids.size() <= kShort) {
    apply_to_short(ids);
  } else {
    apply_to_long(ids, scratch);
  }
}

void BpeMerges::apply_to_short(std::vector<uint32_t>& ids) const {
  std::array<uint32_t, kShort> ranks, merged;  // of the pair that begins at each place
  const auto look_up = [&](size_t at) {
    const Slot* slot = at + 1 < ids.size() ? find(ids[at], ids[at + 1]) : nullptr;
    ranks[at] = slot == nullptr ? UINT32_MAX : slot->rank;
    if (slot != nullptr) merged[at] = slot->merged;
  };
  for (size_t at = 0; at < ids.size(); ++at) look_up(at);
  while (ids.size() > 1) {
    const auto end = ranks.begin() + static_cast<std::ptrdiff_t>(ids.size()) - 1;
    const auto least = std::min_element(ranks.begin(), end);
    if (*least == UINT32_MAX) break;
    const auto at = static_cast<size_t>(least - ranks.begin());
    ids[at] = merged[at];
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    std::copy(least + 2, ranks.begin() + static_cast<std::ptrdiff_t>(ids.size()) + 1, least + 1);
    const auto from = merged.begin() + static_cast<std::ptrdiff_t>(at);
    std::copy(from + 2, merged.begin() + static_cast<std::ptrdiff_t>(ids.size()) + 1, from + 1);
    look_up(at);
    if (at > 0) look_up(at - 1);
  }
}

void BpeMerges::apply_to_long(std::vector<uint32_t>& ids, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.resize(ids.size());
  heap.clear();
  const auto consider = [&](int32_t place) {
    if (place < 0) return false;
    const auto& left = symbols[static_cast<size_t>(place)];
    if (left.next < 0) return false;
    const Slot* slot = find(left.id, symbols[static_cast<size_t>(left.next)].id);
    if (slot == nullptr) return false;
    heap.push_back({slot->rank, static_cast<uint32_t>(place), slot->merged});
    return true;
  };
  const auto count = static_cast<int32_t>(ids.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {ids[static_cast<size_t>(i)], i - 1,
                                       i + 1 < count ? i + 1 : -1};
  }
  for (int32_t i = 0; i < count; ++i) consider(i);
  std::ranges::make_heap(heap, comes_later);

  constexpr int32_t kGone = -2;  // as `previous` of a symbol that was merged into its left one
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, comes_later);
    const auto top = heap.back();
    heap.pop_back();
    auto& left = symbols[top.place];
    if (left.previous == kGone || left.next < 0) continue;
    auto& right = symbols[static_cast<size_t>(left.next)];
    // The pair may have changed since it was found.
    const Slot* slot = find(left.id, right.id);
    if (slot == nullptr || slot->merged != top.merged) continue;
    left.id = top.merged;
    left.next = right.next;
    right.previous = kGone;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = static_cast<int32_t>(top.place);
    }
    for (const int32_t place : {left.previous, static_cast<int32_t>(top.place)}) {
      if (consider(place)) std::ranges::push_heap(heap, comes_later);
    }
  }
  ids.clear();
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

}  // namespace wavroute
