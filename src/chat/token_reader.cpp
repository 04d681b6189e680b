#include "chat/token_reader.h"

#include "base/printable.h"

namespace wavroute::chat {

bool TokenReader::is_sign(std::string_view sign) const {
  return token().kind == TokenKind::kSign && token().text == sign;
}

bool TokenReader::is_word(std::string_view word) const {
  return token().kind == TokenKind::kName && token().text == word;
}

const Token& TokenReader::take() {
  const Token& taken = token();
  if (at_ + 1 < tokens_.size()) ++at_;
  work_.set_line(token().line);
  return taken;
}

bool TokenReader::take_sign(std::string_view sign) {
  const bool is = is_sign(sign);
  if (is) take();
  return is;
}

bool TokenReader::take_word(std::string_view word) {
  const bool is = is_word(word);
  if (is) take();
  return is;
}

void TokenReader::expect_sign(std::string_view sign) {
  if (!take_sign(sign)) fail(printable(sign));
}

const Token& TokenReader::expect(TokenKind kind, std::string_view what) {
  if (token().kind != kind) fail(what);
  return take();
}

void TokenReader::fail(std::string_view wanted) { work_.fail(wanted, described(token())); }

}  // namespace wavroute::chat
