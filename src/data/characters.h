// Characters of texts for the "chars" tokenizer: collecting them, and those that it doesn't know.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wavroute/choices.h"
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

// A "chars" tokenizer of these characters; UserError where there are none. `with_unknown`: U+FFFD
// is one of them and stands for every character that isn't.
[[nodiscard]] std::shared_ptr<const Tokenizer> make_chars_tokenizer(const CharacterSet& characters,
                                                                    bool with_unknown);

// The token that stands for every unknown character; nothing where these are errors.
[[nodiscard]] std::optional<uint32_t> unknown_token(const Tokenizer& tokenizer);

struct KnownText {
  std::string text;
  int64_t unknown = 0;  // characters, and bytes that are no UTF-8
};

// `text` without the characters that a "chars" tokenizer doesn't know (kDrop), or with U+FFFD for
// each (kUnk). Nothing where it knows all of them, for kError, and for other tokenizers. UserError
// for kUnk where the vocabulary has no U+FFFD.
[[nodiscard]] std::optional<KnownText> replace_unknown(const Tokenizer& tokenizer,
                                                       std::string_view text, UnknownText choice);

}  // namespace wavroute
