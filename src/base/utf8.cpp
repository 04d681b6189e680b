#include "base/utf8.h"

namespace wavroute {
namespace {

unsigned char byte_at(std::string_view text, size_t at) {
  return static_cast<unsigned char>(text[at]);
}

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// The number of bytes of a sequence that begins with `lead`; 0 where none does.
size_t sequence_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // a continuation byte, or an overlong form
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

// The second byte is what rules out overlong forms, surrogates and values above U+10FFFF.
bool second_byte_fits(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return is_continuation(second);
  }
}

}  // namespace

Utf8Step utf8_step(std::string_view text, size_t at) noexcept {
  const unsigned char lead = byte_at(text, at);
  const size_t length = sequence_length(lead);
  if (length == 0) return {Utf8State::kInvalid, 0, 1};
  if (length == 1) return {Utf8State::kComplete, lead, 1};
  uint32_t code_point = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return {Utf8State::kTruncated, 0, i};
    const unsigned char next = byte_at(text, at + i);
    const bool fits = i == 1 ? second_byte_fits(lead, next) : is_continuation(next);
    if (!fits) return {Utf8State::kInvalid, 0, i};
    code_point = (code_point << 6) | (next & 0x3Fu);
  }
  return {Utf8State::kComplete, code_point, length};
}

size_t utf8_boundary(std::string_view text, size_t at) noexcept {
  if (at >= text.size()) return text.size();
  for (size_t back = 0; back < 4 && back <= at; ++back) {
    if (!is_continuation(byte_at(text, at - back))) return at - back;
  }
  return at;
}

bool is_utf8(std::string_view text) noexcept {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.state != Utf8State::kComplete) return false;
    at += step.length;
  }
  return true;
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  const auto put_tail = [&](int count) {
    for (int i = count - 1; i >= 0; --i) put(0x80 | ((code_point >> (6 * i)) & 0x3F));
  };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put_tail(1);
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put_tail(2);
  } else {
    put(0xF0 | (code_point >> 18));
    put_tail(3);
  }
}

}  // namespace wavroute
