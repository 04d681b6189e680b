#include "base/toml_bounds.h"

#include <fmt/format.h>

#include <algorithm>

#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr int kMostParts = 8;  // of a dotted key
constexpr const char* kHint = "strings need quotes: scheme = \"wav\"";

bool begins_key(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '"' || c == '\'';
}

// Walks over the text as the parser will, up to the parser's first error.
class Scanner {
 public:
  Scanner(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  void run() {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
    while (at_ < text_.size()) step();
  }

 private:
  void step() {
    const char c = text_[at_];
    if (c == '"' || c == '\'') {
      skip_string(c);
    } else if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (c == '[' && at_line_start_ && depth_ == 0) {
      check_header();
    } else {
      plain(c);
      ++at_;
    }
    if (c != '\n' && c != ' ' && c != '\t' && c != '\r') at_line_start_ = false;
  }

  void plain(char c) {
    require_ascii("ASCII outside strings and comments");
    if (c == '.') {
      if (++parts_ > kMostParts) {
        fail(fmt::format("keys of at most {} parts", kMostParts), "a longer dotted key");
      }
    } else if (c == '\n' || c == '=' || c == ',' || c == '[' || c == ']' || c == '{' || c == '}') {
      parts_ = 1;
    }
    if (c == '\n') {
      ++line_;
      at_line_start_ = true;
      in_header_ = false;
    } else if (!in_header_ && (c == '[' || c == '{')) {
      ++depth_;
    } else if (!in_header_ && (c == ']' || c == '}')) {
      depth_ = std::max(0, depth_ - 1);
    }
  }

  void check_header() {
    in_header_ = true;
    ++at_;
    skip_blanks();
    if (at_ < text_.size() && text_[at_] == '[') ++at_;
    skip_blanks();
    if (at_ < text_.size() && text_[at_] != ']' && !begins_key(text_[at_])) {
      fail("the name of a table after '['", "something else");
    }
  }

  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }

  // Skips a string in either kind of quotes; "\" escapes a quote in double ones only.
  void skip_string(char quote) {
    const std::string three(3, quote);
    const bool is_long = text_.substr(at_, 3) == three;
    at_ += is_long ? 3 : 1;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (is_long ? text_.substr(at_, 3) == three : c == quote) break;
      if (c == '\n' && !is_long) return;  // the parser refuses it here
      if (c == '\\' && quote == '"') {
        skip_escape(is_long);
        continue;
      }
      if (c == '\n') ++line_;
      ++at_;
    }
    at_ = std::min(at_ + (is_long ? 3 : 1), text_.size());
    // Up to two quotes more are the end of a long string's content.
    for (int i = 0; is_long && i < 2 && at_ < text_.size() && text_[at_] == quote; ++i) ++at_;
  }

  // Skips a backslash and what it escapes; in a long string that may be blanks and line ends.
  void skip_escape(bool is_long) {
    constexpr std::string_view kBlanks = " \t\n\v\f\r";
    ++at_;
    if (at_ == text_.size()) return;
    if (!is_long || kBlanks.find(text_[at_]) == std::string_view::npos) {
      require_ascii("an ASCII character after '\\'");
      ++at_;
      return;
    }
    for (; at_ < text_.size() && kBlanks.find(text_[at_]) != std::string_view::npos; ++at_) {
      if (text_[at_] == '\n') ++line_;
    }
    require_ascii("an ASCII character where a line continues after '\\'");
  }

  void require_ascii(const char* expected) const {
    if (at_ < text_.size() && static_cast<unsigned char>(text_[at_]) >= 0x80) {
      fail(expected, "another character");
    }
  }

  [[noreturn]] void fail(const std::string& expected, const std::string& given) const {
    throw wavroute::expected(expected, given, fmt::format("{}:{}", file_, line_), kHint);
  }

  std::string_view text_;
  const std::string& file_;
  size_t at_ = 0;
  int line_ = 1;
  int depth_ = 0;  // of lists and inline tables: a line that begins with '[' in one is no header
  int parts_ = 1;  // of the dotted key that is being read, if any
  bool at_line_start_ = true;
  bool in_header_ = false;
};

}  // namespace

void check_toml_bounds(std::string_view text, const std::string& file) {
  if (text.size() > kMostTomlBytes) {
    throw expected(fmt::format("at most {} bytes of TOML", kMostTomlBytes), text.size(), file,
                   "no configuration is that large");
  }
  Scanner(text, file).run();
}

}  // namespace wavroute
