#include "base/printable.h"

#include <array>
#include <cstdint>

#include "base/utf8.h"

namespace wavroute {
namespace {

void append_hex(std::string& out, uint32_t value, int digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (int i = digits - 1; i >= 0; --i) out += kDigits[(value >> (4 * i)) & 0xF];
}

std::string escaped(std::string_view text, bool keep_lines) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    const uint32_t c = step.code_point;
    if (step.state != Utf8State::kComplete) {
      for (size_t i = 0; i < step.length; ++i) {
        out += "\\x";
        append_hex(out, static_cast<unsigned char>(text[at + i]), 2);
      }
    } else if (c == '\n' || c == '\t') {
      out += keep_lines ? std::string(1, static_cast<char>(c)) : c == '\n' ? "\\n" : "\\t";
    } else if (!is_shown(c)) {
      out += c < 0x80 ? "\\x" : c < 0x10000 ? "\\u" : "\\U";
      append_hex(out, c, c < 0x80 ? 2 : c < 0x10000 ? 4 : 8);
    } else {
      out.append(text, at, step.length);
    }
    at += step.length;
  }
  return out;
}

}  // namespace

std::string terminal_text(std::string_view text) { return escaped(text, /*keep_lines=*/true); }

std::string printable(std::string_view name) {
  constexpr size_t kLongest = 120;
  const bool cut = name.size() > kLongest;
  if (cut) name = name.substr(0, utf8_boundary(name, kLongest));
  std::string text = "'";
  text += escaped(name, /*keep_lines=*/false);
  text += cut ? "...'" : "'";
  return text;
}

}  // namespace wavroute
