// The merges of a byte-pair encoding: which two neighbouring tokens become one, and in what order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wavroute {

struct BpeMerge {
  uint32_t left, right;  // ids
  uint32_t merged;
};

class BpeMerges {
 public:
  // By rank, the first first. Of a pair that stands there twice, the last counts.
  explicit BpeMerges(std::span<const BpeMerge> merges);

  // What apply() needs, kept between calls.
  struct Scratch {
    struct Symbol {
      uint32_t id;
      int32_t previous, next;  // places, -1 at the ends
    };
    struct Candidate {
      uint32_t rank;
      uint32_t place;  // of the left symbol
      uint32_t merged;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // Merges the ids of one word in place: the pair of the lowest rank first, of equal ones the
  // leftmost. n log n for a word of n symbols.
  void apply(std::vector<uint32_t>& ids, Scratch& scratch) const;

 private:
  struct Slot {
    uint64_t pair = UINT64_MAX;  // (left, right); UINT64_MAX where the slot is free
    uint32_t rank = 0;
    uint32_t merged = 0;
  };

  [[nodiscard]] const Slot* find(uint32_t left, uint32_t right) const;
  [[nodiscard]] size_t place_of(uint64_t pair) const;
  void apply_to_short(std::vector<uint32_t>& ids) const;
  void apply_to_long(std::vector<uint32_t>& ids, Scratch& scratch) const;

  std::vector<Slot> slots_;  // open addressing; their number is a power of two
  unsigned shift_ = 0;
};

}  // namespace wavroute
