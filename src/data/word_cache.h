// The ids of the words of a text that were met before: a bounded table.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

class WordCache {
 public:
  static constexpr size_t kLongest = 64;  // bytes of a word that is kept

  WordCache();

  // Nothing where the word is not known; else its ids, until the next call of insert().
  [[nodiscard]] std::optional<std::span<const uint32_t>> find(std::string_view word);
  // For the word that find() just did not know, of at most kLongest bytes.
  void insert(std::string_view word, std::span<const uint32_t> ids);

 private:
  struct Slot {
    uint64_t hash = 0;  // 0 where the slot is free
    uint32_t word_at = 0, ids_at = 0;
    uint16_t word_bytes = 0, count = 0;
  };

  std::vector<Slot> slots_;
  std::string words_;
  std::vector<uint32_t> ids_;
  size_t used_ = 0;
  size_t free_ = 0;         // where the last word that was not found belongs
  uint64_t free_hash_ = 0;  // its hash
};

}  // namespace wavroute
