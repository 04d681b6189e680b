#include "chat/string_literal.h"

#include <charconv>

#include "base/printable.h"
#include "base/utf8.h"

namespace wavroute::chat {
namespace {

// Adds the character with this number of at most `most` digits, which begins at `at`; the end of
// the digits.
size_t add_number(std::string_view literal, size_t at, int base, size_t most, std::string& result,
                  Work& work) {
  const std::string_view digits = literal.substr(at, most);
  uint32_t code_point = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), code_point, base);
  const auto count = static_cast<size_t>(read.ptr - digits.data());
  const bool is_short = base == 16 && count < most;
  const bool is_surrogate = code_point >= 0xD800 && code_point < 0xE000;
  if (read.ec != std::errc() || is_short || is_surrogate || code_point > 0x10FFFF) {
    work.fail("the number of a character behind a backslash", printable(digits));
  }
  append_utf8(result, code_point);
  return at + count;
}

}  // namespace

std::string unescaped(std::string_view literal, Work& work) {
  constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeant = "\\'\"\a\b\f\n\r\t\v";
  std::string result;
  for (size_t at = 0; at < literal.size();) {
    const char c = literal[at++];
    if (c != '\\') {
      result += c;
      continue;
    }
    const char kind = literal[at++];  // there is one: the literal ends at an unescaped quote
    if (const size_t place = kLetters.find(kind); place != std::string_view::npos) {
      result += kMeant[place];
    } else if (kind >= '0' && kind <= '7') {
      at = add_number(literal, at - 1, 8, 3, result, work);
    } else if (kind == 'x' || kind == 'u' || kind == 'U') {
      at = add_number(literal, at, 16, kind == 'x' ? 2 : kind == 'u' ? 4 : 8, result, work);
    } else if (kind == 'N' || static_cast<unsigned char>(kind) >= 0x80) {
      work.refuse("a backslash before " + printable(literal.substr(at - 1)));
    } else if (kind != '\n') {  // a line end behind a backslash is none
      result += {'\\', kind};
    }
  }
  return result;
}

}  // namespace wavroute::chat
