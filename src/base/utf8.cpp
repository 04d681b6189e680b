#include "base/utf8.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

namespace wavroute {
namespace {

// The bytes of the first code point, which goes to `code_point`; 0 where none begins there.
size_t decode(std::string_view text, utf8proc_int32_t& code_point) noexcept {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  return static_cast<size_t>(
      std::max<utf8proc_ssize_t>(0, utf8proc_iterate(bytes, size, &code_point)));
}

// Whether some code point begins with these bytes, of which there are at most three: whatever may
// follow one byte, the least or the largest continuation byte may.
bool begins_a_code_point(std::string_view bytes) noexcept {
  for (const char filler : {'\x80', '\xBF'}) {
    std::array<char, 6> filled{};
    filled.fill(filler);
    std::ranges::copy(bytes, filled.begin());
    utf8proc_int32_t code_point = 0;
    if (decode({filled.data(), filled.size()}, code_point) > bytes.size()) return true;
  }
  return false;
}

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

Utf8Step utf8_step(std::string_view text, size_t at) noexcept {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {Utf8State::kComplete, first, 1};
  const std::string_view rest = text.substr(at);
  utf8proc_int32_t code_point = 0;
  if (const size_t length = decode(rest, code_point); length > 0) {
    return {Utf8State::kComplete, static_cast<uint32_t>(code_point), length};
  }
  size_t length = std::min<size_t>(rest.size(), 3);
  while (length > 0 && !begins_a_code_point(rest.substr(0, length))) --length;
  if (length == 0) return {Utf8State::kInvalid, 0, 1};
  return {length == rest.size() ? Utf8State::kTruncated : Utf8State::kInvalid, 0, length};
}

size_t utf8_boundary(std::string_view text, size_t at) noexcept {
  if (at >= text.size()) return text.size();
  for (size_t back = 0; back < 4 && back <= at; ++back) {
    if (!is_continuation(text[at - back])) return at - back;
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
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes.data());
  for (utf8proc_ssize_t i = 0; i < length; ++i) {
    out.push_back(static_cast<char>(bytes[static_cast<size_t>(i)]));
  }
}

size_t display_width(std::string_view text) noexcept {
  size_t width = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    const bool is_whole = step.state == Utf8State::kComplete;
    width += is_whole ? static_cast<size_t>(std::max(
                            0, utf8proc_charwidth(static_cast<utf8proc_int32_t>(step.code_point))))
                      : 1;
    at += step.length;
  }
  return width;
}

bool is_shown(uint32_t code_point) noexcept {
  constexpr uint32_t kNonJoiner = 0x200C, kJoiner = 0x200D;
  const auto character = static_cast<utf8proc_int32_t>(code_point);
  switch (utf8proc_category(character)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_CF:
      return code_point == kNonJoiner || code_point == kJoiner || utf8proc_charwidth(character) > 0;
    default:
      return true;
  }
}

}  // namespace wavroute
