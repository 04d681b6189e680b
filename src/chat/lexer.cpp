#include "chat/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "base/printable.h"
#include "base/utf8.h"
#include "chat/number_literal.h"
#include "chat/string_literal.h"
#include "chat/text.h"

namespace wavroute::chat {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// Every line ends with "\n", and the last one without.
std::string with_plain_lines(std::string_view source) {
  std::string result;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      result += source[i];
    }
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

class Lexer {
 public:
  Lexer(std::string_view source, Work& work) : source_(source), work_(work) {}

  std::vector<Token> read() {
    while (at_ < source_.size()) read_text();
    add(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  [[nodiscard]] std::string_view rest() const { return source_.substr(at_); }
  [[nodiscard]] bool begins(std::string_view text) const { return rest().starts_with(text); }

  Token& add(TokenKind kind, std::string text = {}) {
    tokens_.push_back({kind, work_.line(), std::move(text)});
    return tokens_.back();
  }

  // Everything moves on through here: it counts the lines.
  void advance(size_t bytes) {
    const std::string_view passed = source_.substr(at_, bytes);
    work_.set_line(work_.line() + static_cast<size_t>(std::ranges::count(passed, '\n')));
    at_ += passed.size();
    if (!passed.empty()) begins_line_ = passed.back() == '\n';
  }

  // {{, {% or {#, with the text before it.
  void read_text() {
    size_t end = at_;
    const auto is_tag = [&] {
      const char c = end + 1 < source_.size() ? source_[end + 1] : ' ';
      return source_[end] == '{' && (c == '{' || c == '%' || c == '#');
    };
    while (end < source_.size() && !is_tag()) ++end;
    const std::string_view text = source_.substr(at_, end - at_);
    if (end == source_.size()) {
      add(TokenKind::kText, std::string(text));
      advance(text.size());
      return;
    }
    const char kind = source_[end + 1];
    const char sign = end + 2 < source_.size() ? source_[end + 2] : ' ';
    add_text(text, sign, kind != '{');
    advance(text.size() + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (kind == '#') {
      pass_comment();
    } else if (kind == '{') {
      add(TokenKind::kPrintBegin);
      read_tag(TokenKind::kPrintEnd, "}}");
    } else if (!pass_raw()) {
      add(TokenKind::kBlockBegin);
      read_tag(TokenKind::kBlockEnd, "%}");
    }
  }

  // The text before a tag: "{%-" takes all white space before it along, "{%" what stands on its
  // line.
  void add_text(std::string_view text, char sign, bool strips_line) {
    if (sign == '-') {
      text = stripped(text, Sides::kRight);
    } else if (sign != '+' && strips_line) {
      const size_t line = text.rfind('\n') + 1;
      const bool begins_line = line > 0 || begins_line_;
      if (begins_line && stripped(text.substr(line), Sides::kLeft).empty()) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) add(TokenKind::kText, std::string(text));
  }

  void pass_space() { advance(rest().size() - stripped(rest(), Sides::kLeft).size()); }

  // Whether a tag ends here with `end`, "%}" or "#}": passes it. "-%}" takes the white space behind
  // it along, "%}" one line end.
  bool pass_end(std::string_view end) {
    const bool is_print = end == "}}";
    if (begins("-") && rest().substr(1).starts_with(end)) {
      advance(1 + end.size());
      pass_space();
      return true;
    }
    const bool is_kept = !is_print && begins("+") && rest().substr(1).starts_with(end);
    if (!is_kept && !begins(end)) return false;
    advance(end.size() + (is_kept ? 1 : 0));
    if (!is_kept && !is_print && begins("\n")) advance(1);
    return true;
  }

  void pass_comment() {
    const size_t line = work_.line();
    while (!pass_end("#}")) {
      if (at_ >= source_.size()) {
        work_.set_line(line);
        work_.fail("the end of a comment, #}", "the end of the template");
      }
      advance(1);
    }
  }

  // {% raw %}: text up to {% endraw %}.
  bool pass_raw() {
    const auto word_end = [&](std::string_view text, std::string_view word) -> size_t {
      const std::string_view begin = stripped(text, Sides::kLeft);
      if (!begin.starts_with(word)) return 0;
      const std::string_view behind = stripped(begin.substr(word.size()), Sides::kLeft);
      return text.size() - behind.size();
    };
    const size_t word = word_end(rest(), "raw");
    const std::string_view behind = rest().substr(word);
    if (word == 0 || !(behind.starts_with("%}") || behind.starts_with("-%}"))) return false;
    const bool strips = behind.starts_with('-');
    advance(word + (strips ? 3 : 2));
    if (strips) pass_space();
    for (size_t end = rest().find("{%"); end != std::string_view::npos;
         end = rest().find("{%", end + 1)) {
      const std::string_view tag = rest().substr(end + 2);
      const char sign = tag.empty() ? ' ' : tag[0];
      const size_t begin = end + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      const size_t length = word_end(rest().substr(begin), "endraw");
      const std::string_view last = rest().substr(begin + length);
      if (length == 0 ||
          !(last.starts_with("%}") || last.starts_with("-%}") || last.starts_with("+%}"))) {
        continue;
      }
      add_text(rest().substr(0, end), sign, /*strips_line=*/true);
      advance(begin + length);
      return pass_end("%}");
    }
    work_.fail("{% endraw %}", "the end of the template");
  }

  // The tokens of a tag up to its end.
  void read_tag(TokenKind end_kind, std::string_view end) {
    std::string open;  // brackets
    while (true) {
      if (at_ >= source_.size()) {
        work_.fail(fmt::format("the end of the tag, {}", end), "the end of the template");
      }
      const size_t line = work_.line();
      if (open.empty() && pass_end(end)) {
        tokens_.push_back({end_kind, line, {}});
        return;
      }
      const std::string_view before = rest();
      pass_space();
      if (rest().size() == before.size()) read_token(open);
    }
  }

  void read_token(std::string& open) {
    const char c = rest()[0];
    if (is_digit(c)) return read_number();
    if (is_name(c)) {
      const auto end = std::ranges::find_if_not(rest(), is_name);
      const auto size = static_cast<size_t>(end - rest().begin());
      if (size < rest().size() && static_cast<unsigned char>(rest()[size]) >= 0x80) {
        work_.refuse("a name beyond ASCII");
      }
      add(TokenKind::kName, std::string(rest().substr(0, size)));
      advance(size);
    } else if (c == '\'' || c == '"') {
      read_string();
    } else {
      read_sign(open);
    }
  }

  void read_number() {
    const bool is_part = at_ > 0 && source_[at_ - 1] == '.';  // a.0.1
    const size_t real = is_part ? 0 : float_length(rest());
    const size_t size = real > 0 ? real : integer_length(rest());
    std::string digits(rest().substr(0, size));
    std::erase(digits, '_');
    const char* const end = digits.data() + digits.size();
    Token& token = add(real > 0 ? TokenKind::kFloat : TokenKind::kInteger);
    std::errc error{};
    if (real > 0) {
      error = std::from_chars(digits.data(), end, token.real).ec;
    } else {
      const char next = size < rest().size() ? rest()[size] : ' ';
      if (digits == "0" && std::string_view("xXoObB").find(next) != std::string_view::npos) {
        work_.refuse("a number that is not decimal");
      }
      error = std::from_chars(digits.data(), end, token.integer).ec;
    }
    if (error != std::errc()) work_.refuse("the number " + printable(digits));
    advance(size);
  }

  void read_string() {
    const char quote = rest()[0];
    size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) end += rest()[end] == '\\' ? 2 : 1;
    if (end >= rest().size()) work_.fail("the end of a text in quotes", "the end of the template");
    add(TokenKind::kString, unescaped(rest().substr(1, end - 1), work_));
    advance(end + 1);
  }

  void read_sign(std::string& open) {
    constexpr std::array<std::string_view, 26> kSigns = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto* const found =
        std::ranges::find_if(kSigns, [&](std::string_view sign) { return begins(sign); });
    if (found == kSigns.end()) {
      const size_t length = utf8_step(rest(), 0).length;
      work_.fail("a token of Jinja", printable(rest().substr(0, length)));
    }
    constexpr std::string_view kOpening = "([{", kClosing = ")]}";
    if (kOpening.find(*found) != std::string_view::npos) {
      open += (*found)[0];
    } else if (const size_t pair = kClosing.find(*found); pair != std::string_view::npos) {
      if (open.empty() || open.back() != kOpening[pair]) {
        work_.fail("brackets in pairs", printable(*found));
      }
      open.pop_back();
    }
    add(TokenKind::kSign, std::string(*found));
    advance(found->size());
  }

  std::string_view source_;
  Work& work_;
  size_t at_ = 0;
  bool begins_line_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> read_tokens(std::string_view source, Work& work) {
  if (source.size() > kMostTemplateBytes) {
    work.fail(fmt::format("a template of at most {} bytes", kMostTemplateBytes),
              fmt::format("{}", source.size()));
  }
  if (!is_utf8(source)) work.fail("UTF-8", "other bytes");
  const std::string text = with_plain_lines(source);
  return Lexer(text, work).read();
}

std::string described(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
    case TokenKind::kString:
      return "the text " + printable(token.text);
    case TokenKind::kPrintBegin:
      return "{{";
    case TokenKind::kPrintEnd:
    case TokenKind::kBlockEnd:
      return "the end of the tag";
    case TokenKind::kBlockBegin:
      return "{%";
    case TokenKind::kName:
    case TokenKind::kSign:
      return printable(token.text);
    case TokenKind::kInteger:
      return fmt::format("{}", token.integer);
    case TokenKind::kFloat:
      return fmt::format("{}", token.real);
    case TokenKind::kEnd:
      break;
  }
  return "the end of the template";
}

}  // namespace wavroute::chat
