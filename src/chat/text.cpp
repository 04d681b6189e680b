#include "chat/text.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"

namespace wavroute::chat {
namespace {

struct Read {
  uint32_t code_point;
  size_t length;
};

Read first(std::string_view text) {
  const Utf8Step step = utf8_step(text, 0);
  return {step.code_point, step.length};
}

std::string_view last(std::string_view text) {
  return text.substr(utf8_boundary(text, text.size() - 1));
}

template <typename IsStripped>
std::string_view strip(std::string_view text, Sides sides, IsStripped is_stripped) {
  const auto has = [&](Sides side) {
    return (static_cast<uint8_t>(sides) & static_cast<uint8_t>(side)) != 0;
  };
  while (has(Sides::kLeft) && !text.empty()) {
    const std::string_view character = text.substr(0, first(text).length);
    if (!is_stripped(character)) break;
    text.remove_prefix(character.size());
  }
  while (has(Sides::kRight) && !text.empty()) {
    const std::string_view character = last(text);
    if (!is_stripped(character)) break;
    text.remove_suffix(character.size());
  }
  return text;
}

bool is_space_character(std::string_view character) {
  return is_space(first(character).code_point);
}

std::string mapped(std::string_view text, char from, char to, int offset) {
  std::string result(text);
  for (char& c : result) {
    if (c >= from && c <= to) c = static_cast<char>(c + offset);
  }
  return result;
}

}  // namespace

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

size_t length(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> result;
  result.reserve(text.size());
  while (!text.empty()) {
    result.push_back(text.substr(0, first(text).length));
    text.remove_prefix(result.back().size());
  }
  return result;
}

std::string_view stripped(std::string_view text, Sides sides) {
  return strip(text, sides, is_space_character);
}

std::string_view stripped(std::string_view text, Sides sides, std::string_view chars) {
  return strip(text, sides, [&](std::string_view character) {
    return chars.find(character) != std::string_view::npos;
  });
}

std::vector<std::string_view> split(std::string_view text, int64_t most) {
  std::vector<std::string_view> parts;
  for (text = stripped(text, Sides::kLeft); !text.empty();) {
    if (most >= 0 && std::cmp_equal(parts.size(), most)) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const auto [code_point, size] = first(text.substr(end));
      if (is_space(code_point)) break;
      end += size;
    }
    parts.push_back(text.substr(0, end));
    text = stripped(text.substr(end), Sides::kLeft);
  }
  return parts;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator,
                                    int64_t most) {
  std::vector<std::string_view> parts;
  while (most < 0 || std::cmp_less(parts.size(), most)) {
    const size_t end = text.find(separator);
    if (end == std::string_view::npos) break;
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end + separator.size());
  }
  parts.push_back(text);
  return parts;
}

std::string replaced(std::string_view text, std::string_view old, std::string_view replacement,
                     int64_t most, size_t most_bytes) {
  std::string result;
  for (int64_t count = 0; (most < 0 || count < most) && result.size() <= most_bytes; ++count) {
    if (old.empty()) {  // before each character, and at the end
      result += replacement;
      if (text.empty()) return result;
      const size_t size = first(text).length;
      result += text.substr(0, size);
      text.remove_prefix(size);
      continue;
    }
    const size_t end = text.find(old);
    if (end == std::string_view::npos) break;
    result += text.substr(0, end);
    result += replacement;
    text.remove_prefix(end + old.size());
  }
  result += text;
  return result;
}

std::string upper(std::string_view text) { return mapped(text, 'a', 'z', 'A' - 'a'); }
std::string lower(std::string_view text) { return mapped(text, 'A', 'Z', 'a' - 'A'); }

}  // namespace wavroute::chat
