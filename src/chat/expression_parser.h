// Reads expressions from tokens, with the precedence of Jinja.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "chat/syntax.h"
#include "chat/token_reader.h"

namespace wavroute::chat {

class ExpressionParser : public TokenReader {
 public:
  using TokenReader::TokenReader;

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

  size_t level_ = 0;
};

}  // namespace wavroute::chat
