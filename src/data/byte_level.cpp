#include "data/byte_level.h"

#include <cstdint>

#include "base/utf8.h"
#include "data/unicode_classes.h"

namespace wavroute {
namespace {

constexpr uint32_t kBytes = 256;
constexpr uint32_t kFirstFree = 0x100;

bool is_printable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

}  // namespace

const std::array<std::string, 256>& byte_symbols() {
  static const std::array<std::string, kBytes> symbols = [] {
    std::array<std::string, kBytes> made;
    uint32_t next_free = kFirstFree;
    for (uint32_t byte = 0; byte < kBytes; ++byte) {
      append_utf8(made[byte], is_printable(byte) ? byte : next_free++);
    }
    return made;
  }();
  return symbols;
}

std::optional<std::string> bytes_of_symbols(std::string_view word) {
  static const std::string hidden = [] {  // the bytes from kFirstFree on
    std::string bytes;
    for (uint32_t byte = 0; byte < kBytes; ++byte) {
      if (!is_printable(byte)) bytes.push_back(static_cast<char>(byte));
    }
    return bytes;
  }();
  const CharacterReader characters;
  std::string bytes;
  const char* const end = word.data() + word.size();
  for (const char* at = word.data(); at != end;) {
    const Character character = characters.read(at, end);
    at += character.length;
    const uint32_t code_point = character.code_point;
    if (!character.is_valid) return std::nullopt;
    if (code_point < kBytes && is_printable(code_point)) {
      bytes.push_back(static_cast<char>(code_point));
    } else if (code_point >= kFirstFree && code_point - kFirstFree < hidden.size()) {
      bytes.push_back(hidden[code_point - kFirstFree]);
    } else {
      return std::nullopt;
    }
  }
  return bytes;
}

}  // namespace wavroute
