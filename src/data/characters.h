// Characters of texts for the "chars" tokenizer: collecting them, and those that it doesn't know.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wavroute/tokenizer.h"

namespace wavroute {

// The code points that occur in texts.
class CharacterSet {
 public:
  CharacterSet();
  // UserError where `text`, which begins at `offset` of `where`, is not UTF-8.
  void add(std::string_view text, std::string_view where, uint64_t offset = 0);
  // Each once, in their order, as a text: what make_chars_tokenizer() takes.
  [[nodiscard]] std::string text() const;

 private:
  std::vector<bool> seen_;  // by code point
};

}  // namespace wavroute
