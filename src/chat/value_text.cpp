#include "chat/value_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"
#include "chat/text.h"

namespace wavroute::chat {
namespace {

// repr() of a float: the shortest digits that read back as the same number.
std::string float_text(double number) {
  char buffer[64];
  const auto end =
      std::to_chars(std::begin(buffer), std::end(buffer), number, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  std::string result = text.starts_with('-') ? "-" : "";
  if (!result.empty()) text.remove_prefix(1);
  const size_t mark = text.find('e');
  int64_t exponent = 0;
  const char* digits = text.data() + mark + (text[mark + 1] == '+' ? 2 : 1);
  std::from_chars(digits, text.data() + text.size(), exponent);
  std::string mantissa(text.substr(0, mark));
  std::erase(mantissa, '.');
  const auto count = std::ssize(mantissa);
  if (exponent < -4 || exponent >= 16) {
    if (count > 1) mantissa.insert(1, ".");
    return result +
           fmt::format("{}e{}{:02}", mantissa, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return result + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + mantissa;
  if (count <= exponent + 1) {
    return result + mantissa + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  }
  return result + mantissa.insert(static_cast<size_t>(exponent + 1), ".");
}

// repr() of a text in ASCII: which other characters it escapes depends on Python's Unicode.
std::string quoted(std::string_view text, Work& work) {
  if (!is_ascii(text)) work.refuse("a text beyond ASCII in a printed list or dict");
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string result(1, quote);
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == quote || c == '\\') {
      result += {'\\', c};
    } else if (c == '\n' || c == '\r' || c == '\t') {
      result += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (code < 0x20 || code == 0x7F) {
      result += fmt::format("\\x{:02x}", code);
    } else {
      result += c;
    }
  }
  return result + quote;
}

// A text that grows, at the cost of work, up to the largest there may be.
class BoundedText {
 public:
  explicit BoundedText(Work& work) : work_(work) {}
  void append(std::string_view text) {
    text_ += text;
    work_.spend(text.size() + 1);
    if (text_.size() > kMostTextBytes) work_.spend_text(text_.size());
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  Work& work_;
  std::string text_;
};

class Repr {
 public:
  explicit Repr(Work& work) : work_(work), text_(work) {}

  void add(const Value& value) {
    if (value.is_text()) {
      text_.append(quoted(value.text(), work_));
    } else if (value.is_undefined()) {
      text_.append("Undefined");
    } else if (const Sequence* sequence = value.sequence()) {
      add_sequence(*sequence, kind_of(value));
    } else if (const Dict* dict = value.dict()) {
      add_dict(*dict);
    } else {
      text_.append(to_text(value, work_));
    }
  }
  [[nodiscard]] std::string take() { return text_.take(); }

 private:
  void add_sequence(const Sequence& sequence, const std::string& kind) {
    const bool is_tuple = sequence.kind == SequenceKind::kTuple;
    if (!is_tuple && sequence.kind != SequenceKind::kList) work_.refuse(kind + " as a text");
    text_.append(is_tuple ? "(" : "[");
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0) text_.append(", ");
      add(sequence.items[i]);
    }
    if (is_tuple && sequence.items.size() == 1) text_.append(",");
    text_.append(is_tuple ? ")" : "]");
  }

  void add_dict(const Dict& dict) {
    text_.append("{");
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) text_.append(", ");
      add(dict.entries[i].first);
      text_.append(": ");
      add(dict.entries[i].second);
    }
    text_.append("}");
  }

  Work& work_;
  BoundedText text_;
};

class Json {
 public:
  Json(const JsonStyle& style, Work& work) : style_(style), work_(work), text_(work) {}

  void add(const Value& value, size_t level) {
    const Sequence* sequence = value.sequence();
    if (value.is_text()) {
      add_text(value.text());
    } else if (value.is_none()) {
      text_.append("null");
    } else if (value.is<bool>()) {
      text_.append(is_true(value) ? "true" : "false");
    } else if (value.is_number()) {
      text_.append(to_text(value, work_));
    } else if (const Dict* dict = value.dict()) {
      add_dict(*dict, level);
    } else if (sequence != nullptr &&
               (sequence->kind == SequenceKind::kList || sequence->kind == SequenceKind::kTuple)) {
      add_list(sequence->items, level);
    } else {
      work_.fail("a value that JSON has", kind_of(value));
    }
  }
  [[nodiscard]] std::string take() { return text_.take(); }

 private:
  void start_line(size_t level) {
    if (!style_.is_indented) return;
    text_.append("\n");
    for (size_t i = 0; i < level; ++i) text_.append(style_.indent);
  }

  void add_text(std::string_view text) {
    std::string result = "\"";
    for (const std::string_view character : characters(text)) {
      const uint32_t c = utf8_step(character, 0).code_point;
      constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
      const size_t place = c < 0x80 ? kEscaped.find(character) : std::string_view::npos;
      if (place != std::string_view::npos) {
        result += {'\\', kLetters[place]};
      } else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7F && c < 0x10000)) {
        result += fmt::format("\\u{:04x}", c);
      } else if (style_.ensure_ascii && c >= 0x10000) {
        const uint32_t rest = c - 0x10000;
        result += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
      } else {
        result += character;
      }
    }
    text_.append(result + "\"");
  }

  void add_list(const Values& items, size_t level) {
    text_.append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) text_.append(style_.between);
      start_line(level + 1);
      add(items[i], level + 1);
    }
    if (!items.empty()) start_line(level);
    text_.append("]");
  }

  void add_key(const Value& key) {
    if (key.is_text()) return add_text(key.text());
    if (key.sequence() != nullptr) work_.fail("a key that JSON has", kind_of(key));
    text_.append("\"");
    add(key, 0);
    text_.append("\"");
  }

  void add_dict(const Dict& dict, size_t level) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      for (const auto* entry : entries) {
        if (!entry->first.is_text()) work_.refuse("tojson(sort_keys) of keys that are no texts");
      }
      std::ranges::sort(entries, {}, [](const auto* entry) { return entry->first.text(); });
    }
    text_.append("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) text_.append(style_.between);
      start_line(level + 1);
      add_key(entries[i]->first);
      text_.append(style_.after_key);
      add(entries[i]->second, level + 1);
    }
    if (!entries.empty()) start_line(level);
    text_.append("}");
  }

  const JsonStyle& style_;
  Work& work_;
  BoundedText text_;
};

}  // namespace

std::string to_text(const Value& value, Work& work) {
  if (value.is_text()) return value.text();
  if (value.is_undefined()) return {};
  if (value.is_none()) return "None";
  if (value.is<bool>()) return is_true(value) ? "True" : "False";
  if (value.is_integer()) return std::to_string(value.integer());
  if (value.is<double>()) return float_text(value.number());
  if (value.sequence() == nullptr && value.dict() == nullptr) {
    work.refuse(kind_of(value) + " as a text");
  }
  Repr repr(work);
  repr.add(value);
  return repr.take();
}

std::string to_json(const Value& value, const JsonStyle& style, Work& work) {
  Json json(style, work);
  json.add(value, 0);
  return json.take();
}

}  // namespace wavroute::chat
