// The bytes of text that tokens stand for, as bits per byte count them.
#pragma once

#include <cstdint>
#include <optional>

#include "wavroute/tokenizer.h"

namespace wavroute {

// A token that ends documents, and one that stands for any unknown character, stand for no bytes of
// a text: their loss counts, and nothing is gained by them.
class ScoredBytes {
 public:
  explicit ScoredBytes(const Tokenizer& tokenizer);
  [[nodiscard]] int64_t of(uint32_t id) const {
    if (end_ == id || unknown_ == id) return 0;
    return static_cast<int64_t>(tokenizer_.token_bytes(id).size());
  }

 private:
  const Tokenizer& tokenizer_;
  std::optional<uint32_t> end_, unknown_;
};

}  // namespace wavroute
