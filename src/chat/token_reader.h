// The tokens of a template, one after the other.
#pragma once

#include <algorithm>
#include <span>
#include <string_view>

#include "chat/lexer.h"

namespace wavroute::chat {

class TokenReader {
 public:
  // `tokens` ends with kEnd, and outlives the reader.
  TokenReader(std::span<const Token> tokens, Work& work) : tokens_(tokens), work_(work) {}

  // The next token, and the one behind it.
  [[nodiscard]] const Token& token() const { return tokens_[at_]; }
  [[nodiscard]] const Token& following() const {
    return tokens_[std::min(at_ + 1, tokens_.size() - 1)];
  }
  [[nodiscard]] bool is_sign(std::string_view sign) const;
  [[nodiscard]] bool is_word(std::string_view word) const;
  const Token& take();
  // Takes the token if it is this one.
  bool take_sign(std::string_view sign);
  bool take_word(std::string_view word);
  // UserError for another token.
  void expect_sign(std::string_view sign);
  const Token& expect(TokenKind kind, std::string_view what);
  [[noreturn]] void fail(std::string_view wanted);

 protected:
  Work& work() { return work_; }

 private:
  std::span<const Token> tokens_;
  Work& work_;
  size_t at_ = 0;
};

}  // namespace wavroute::chat
