// What characters are to the library `tokenizers`, by a table of its own (make_unicode_tables.py):
// libraries of the system know other versions of Unicode, and one letter more changes token ids.
#pragma once

#include <cstdint>
#include <string_view>

namespace wavroute {

// Bits; a character may have several.
enum CharacterClass : uint8_t {
  kLetter = 1,    // \p{L} of a regular expression
  kNumber = 2,    // \p{N}
  kSpace = 4,     // \s
  kNumeric = 8,   // what the pre-tokenizer Digits takes for a digit
  kWord = 16,     // what may not stand beside a token that is a single word
  kNewline = 32,  // \r or \n
};

// By code point, below 0x110000.
[[nodiscard]] const uint8_t* unicode_classes();

struct Character {
  uint32_t code_point;
  uint8_t classes;  // none for a byte that is not part of UTF-8
  uint8_t length;   // bytes
  bool is_valid;    // false: one byte that is not part of UTF-8; it is its own `code_point`
};

// Reads the characters of a text one after the other.
class CharacterReader {
 public:
  CharacterReader() : classes_(unicode_classes()) {}

  // What begins at `at`, which is before `end`.
  [[nodiscard]] Character read(const char* at, const char* end) const {
    const auto first = static_cast<unsigned char>(*at);
    if (first < 0x80) return {first, classes_[first], 1, true};
    return read_long(at, end);
  }
  // The classes of the character before `at`, which is after `begin`.
  [[nodiscard]] uint8_t classes_before(const char* begin, const char* at) const;
  // The end of the run of characters from `at` on that have one of `classes`.
  [[nodiscard]] const char* skip(const char* at, const char* end, uint8_t classes) const {
    while (at != end) {
      const Character character = read(at, end);
      if ((character.classes & classes) == 0) break;
      at += character.length;
    }
    return at;
  }

 private:
  [[nodiscard]] Character read_long(const char* at, const char* end) const;

  const uint8_t* classes_;
};

}  // namespace wavroute
