// Reads expressions from tokens, with the precedence of Jinja.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "chat/lexer.h"
#include "chat/syntax.h"

namespace wavroute::chat {

class ExpressionParser {
 public:
  // `tokens` ends with kEnd, and outlives the parser.
  ExpressionParser(std::span<const Token> tokens, Work& work) : tokens_(tokens), work_(work) {}

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

  // One expression, or a tuple without brackets: a, b. `with_condition`: "a if b" may stand there.
  [[nodiscard]] Expression read_tuple(bool with_condition = true);
  [[nodiscard]] Expression read_expression(bool with_condition = true);
  // What `for` and `set` assign to: names, in tuples too; for `set` also name.attribute.
  [[nodiscard]] Expression read_target(bool with_attribute);

 private:
  class Level;

  [[nodiscard]] Expression make(ExpressionKind kind, std::vector<Expression> parts = {},
                                std::string name = {});
  [[nodiscard]] bool ends_tuple() const;
  [[nodiscard]] Expression read_conditional();
  [[nodiscard]] Expression read_or();
  [[nodiscard]] Expression read_and();
  [[nodiscard]] Expression read_not();
  [[nodiscard]] Expression read_comparison();
  [[nodiscard]] Expression read_sum();
  [[nodiscard]] Expression read_concatenation();
  [[nodiscard]] Expression read_product();
  [[nodiscard]] Expression read_power();
  [[nodiscard]] Expression read_unary(bool with_filter);
  [[nodiscard]] Expression read_primary();
  [[nodiscard]] Expression read_word();
  [[nodiscard]] Expression read_list();
  [[nodiscard]] Expression read_dict();
  // Subscripts and calls behind a value; then filters and tests.
  [[nodiscard]] Expression read_postfix(Expression value);
  [[nodiscard]] Expression read_filters(Expression value);
  [[nodiscard]] Expression read_subscript(Expression value);
  [[nodiscard]] Expression read_filter(Expression value);
  [[nodiscard]] Expression read_test(Expression value);
  // Adds the arguments to the call, filter or test.
  void read_arguments(Expression& call);
  [[nodiscard]] Expression read_operators(std::initializer_list<std::string_view> signs,
                                          Expression (ExpressionParser::*operand)());
  void check_target(const Expression& target);

  std::span<const Token> tokens_;
  Work& work_;
  size_t at_ = 0;
  size_t level_ = 0;
};

}  // namespace wavroute::chat
