#include "data/unicode_classes.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace wavroute {
namespace {

constexpr uint32_t kCodePoints = 0x110000;
constexpr unsigned kFlagBits = 5;

// kClassRanges: (first code point << kFlagBits | classes) of ranges that end where the next begins.
#include "data/unicode_classes.inc"

std::vector<uint8_t> spread_ranges() {
  std::vector<uint8_t> classes(kCodePoints);
  for (size_t i = 0; i < std::size(kClassRanges); ++i) {
    const uint32_t begin = kClassRanges[i] >> kFlagBits;
    const uint32_t end =
        i + 1 < std::size(kClassRanges) ? kClassRanges[i + 1] >> kFlagBits : kCodePoints;
    const auto flags = static_cast<uint8_t>(kClassRanges[i] & ((1U << kFlagBits) - 1));
    std::fill(classes.begin() + begin, classes.begin() + end, flags);
  }
  for (const char newline : {'\r', '\n'}) classes[static_cast<size_t>(newline)] |= kNewline;
  return classes;
}

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

const uint8_t* unicode_classes() {
  static const std::vector<uint8_t> classes = spread_ranges();
  return classes.data();
}

Character CharacterReader::read_long(const char* at, const char* end) const {
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};  // by length: no overlong forms
  const auto first = static_cast<unsigned char>(*at);
  const Character invalid = {first, 0, 1, false};
  const int length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (length == 0 || end - at < length) return invalid;
  uint32_t code_point = first & (0x7FU >> length);
  for (int i = 1; i < length; ++i) {
    if (!is_continuation(at[i])) return invalid;
    code_point = code_point << 6 | (static_cast<unsigned char>(at[i]) & 0x3FU);
  }
  const bool is_surrogate = code_point >= 0xD800 && code_point < 0xE000;
  if (code_point < kLeast[length] || is_surrogate || code_point >= kCodePoints) return invalid;
  return {code_point, classes_[code_point], static_cast<uint8_t>(length), true};
}

uint8_t CharacterReader::classes_before(const char* begin, const char* at) const {
  for (const char* start = at - 1; at - start <= 4; --start) {
    if (!is_continuation(*start)) {
      const Character character = read(start, at);
      return start + character.length == at ? character.classes : 0;
    }
    if (start == begin) break;
  }
  return 0;
}

}  // namespace wavroute
