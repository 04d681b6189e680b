#include "chat/number_literal.h"

namespace wavroute::chat {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Digits with single _ between them: (\d+_)*\d+. Their length.
size_t digits_at(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() &&
         (is_digit(text[end]) || (text[end] == '_' && end > at && text[end - 1] != '_' &&
                                  end + 1 < text.size() && is_digit(text[end + 1])))) {
    ++end;
  }
  return end - at;
}

}  // namespace

size_t float_length(std::string_view text) {
  size_t end = digits_at(text, 0);
  if (end == 0) return 0;
  const size_t whole = end;
  if (end < text.size() && text[end] == '.') {
    if (const size_t count = digits_at(text, end + 1); count > 0) end += 1 + count;
  }
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    const size_t sign = end + 1 < text.size() && (text[end + 1] == '+' || text[end + 1] == '-');
    if (const size_t count = digits_at(text, end + 1 + sign); count > 0) {
      return end + 1 + sign + count;
    }
  }
  return end > whole ? end : 0;
}

size_t integer_length(std::string_view text) {
  if (text[0] != '0') return digits_at(text, 0);
  size_t end = 1;
  while (end < text.size() && (text[end] == '0' || (text[end] == '_' && end + 1 < text.size() &&
                                                    text[end + 1] == '0'))) {
    ++end;
  }
  return end;
}

}  // namespace wavroute::chat
