#include "chat/expression_parser.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace wavroute::chat {

// A level of recursion, for the time of a call.
class ExpressionParser::Level {
 public:
  explicit Level(ExpressionParser& parser) : parser_(parser) {
    if (++parser_.level_ > kMostNesting) parser_.work().fail_nesting();
  }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;
  ~Level() { --parser_.level_; }

 private:
  ExpressionParser& parser_;
};

Expression ExpressionParser::make(ExpressionKind kind, std::vector<Expression> parts,
                                  std::string name) {
  Expression expression;
  expression.kind = kind;
  expression.line = parts.empty() ? work().line() : parts.front().line;
  for (const Expression& part : parts)
    expression.depth = std::max(expression.depth, part.depth + 1);
  if (expression.depth > kMostNesting) work().fail_nesting();
  expression.name = std::move(name);
  expression.parts = std::move(parts);
  return expression;
}

namespace {

// A vector of what can't be copied cheaply.
template <typename... Parts>
std::vector<Expression> list_of(Parts&&... parts) {
  std::vector<Expression> result;
  result.reserve(sizeof...(parts));
  (result.push_back(std::forward<Parts>(parts)), ...);
  return result;
}

}  // namespace

// ---- from the weakest operator to the strongest ----------------------------------------------

bool ExpressionParser::ends_tuple() const {
  const TokenKind kind = token().kind;
  return kind == TokenKind::kPrintEnd || kind == TokenKind::kBlockEnd || is_sign(")");
}

Expression ExpressionParser::read_tuple(bool with_condition) {
  std::vector<Expression> items;
  bool is_tuple = false;
  while (!ends_tuple()) {
    items.push_back(read_expression(with_condition));
    if (!take_sign(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return make(ExpressionKind::kTuple, std::move(items));
  if (items.empty()) fail("an expression");
  return std::move(items.front());
}

Expression ExpressionParser::read_expression(bool with_condition) {
  const Level level(*this);
  return with_condition ? read_conditional() : read_or();
}

Expression ExpressionParser::read_conditional() {
  const Level level(*this);
  Expression value = read_or();
  while (take_word("if")) {
    auto parts = list_of(read_or(), std::move(value));
    if (take_word("else")) parts.push_back(read_conditional());
    value = make(ExpressionKind::kConditional, std::move(parts));
  }
  return value;
}

Expression ExpressionParser::read_or() {
  Expression left = read_and();
  while (take_word("or")) {
    left = make(ExpressionKind::kOr, list_of(std::move(left), read_and()));
  }
  return left;
}

Expression ExpressionParser::read_and() {
  Expression left = read_not();
  while (take_word("and")) {
    left = make(ExpressionKind::kAnd, list_of(std::move(left), read_not()));
  }
  return left;
}

Expression ExpressionParser::read_not() {
  const Level level(*this);
  if (take_word("not")) return make(ExpressionKind::kNot, list_of(read_not()));
  return read_comparison();
}

Expression ExpressionParser::read_comparison() {
  auto parts = list_of(read_sum());
  std::vector<std::string> signs;
  while (true) {
    constexpr std::array<std::string_view, 6> kSigns = {"==", "!=", "<", "<=", ">", ">="};
    if (std::ranges::any_of(kSigns, [&](std::string_view sign) { return is_sign(sign); })) {
      signs.push_back(take().text);
    } else if (take_word("in")) {
      signs.emplace_back("in");
    } else if (is_word("not") && following().kind == TokenKind::kName && following().text == "in") {
      take();
      take();
      signs.emplace_back("not in");
    } else {
      break;
    }
    parts.push_back(read_sum());
  }
  if (signs.empty()) return std::move(parts.front());
  Expression comparison = make(ExpressionKind::kCompare, std::move(parts));
  comparison.names = std::move(signs);
  return comparison;
}

Expression ExpressionParser::read_operators(std::initializer_list<std::string_view> signs,
                                            Expression (ExpressionParser::*operand)()) {
  Expression left = (this->*operand)();
  while (std::ranges::any_of(signs, [&](std::string_view sign) { return is_sign(sign); })) {
    std::string sign = take().text;
    left = make(ExpressionKind::kCalculate, list_of(std::move(left), (this->*operand)()),
                std::move(sign));
  }
  return left;
}

Expression ExpressionParser::read_sum() {
  return read_operators({"+", "-"}, &ExpressionParser::read_concatenation);
}

Expression ExpressionParser::read_concatenation() {
  auto parts = list_of(read_product());
  while (take_sign("~")) parts.push_back(read_product());
  if (parts.size() == 1) return std::move(parts.front());
  return make(ExpressionKind::kConcatenate, std::move(parts));
}

Expression ExpressionParser::read_product() {
  return read_operators({"*", "/", "//", "%"}, &ExpressionParser::read_power);
}

// 2 ** 3 ** 2 is 64: from the left, unlike Python's.
Expression ExpressionParser::read_power() {
  Expression left = read_unary(/*with_filter=*/true);
  while (take_sign("**")) {
    left = make(ExpressionKind::kCalculate,
                list_of(std::move(left), read_unary(/*with_filter=*/true)), "**");
  }
  return left;
}

Expression ExpressionParser::read_unary(bool with_filter) {
  const Level level(*this);
  Expression value;
  if (take_sign("-")) {
    value = make(ExpressionKind::kNegative, list_of(read_unary(/*with_filter=*/false)));
  } else if (take_sign("+")) {
    value = make(ExpressionKind::kPositive, list_of(read_unary(/*with_filter=*/false)));
  } else {
    value = read_primary();
  }
  value = read_postfix(std::move(value));
  return with_filter ? read_filters(std::move(value)) : value;
}

// ---- values ----------------------------------------------------------------------------------

Expression ExpressionParser::read_word() {
  const std::string word = take().text;
  const bool is_flag = word == "true" || word == "True" || word == "false" || word == "False";
  if (!is_flag && word != "none" && word != "None") {
    return make(ExpressionKind::kName, {}, word);
  }
  Expression constant = make(ExpressionKind::kConstant);
  constant.constant = is_flag ? Value(word == "true" || word == "True") : Value(None{});
  return constant;
}

Expression ExpressionParser::read_primary() {
  Expression constant = make(ExpressionKind::kConstant);
  switch (token().kind) {
    case TokenKind::kName:
      return read_word();
    case TokenKind::kString: {
      std::string text;
      while (token().kind == TokenKind::kString) text += take().text;
      constant.constant = Value(std::move(text));
      return constant;
    }
    case TokenKind::kInteger:
      constant.constant = Value(take().integer);
      return constant;
    case TokenKind::kFloat:
      constant.constant = Value(take().real);
      return constant;
    default:
      break;
  }
  if (is_sign("[")) return read_list();
  if (is_sign("{")) return read_dict();
  if (!take_sign("(")) fail("a value");
  Expression value = is_sign(")") ? make(ExpressionKind::kTuple) : read_tuple();
  expect_sign(")");
  return value;
}

Expression ExpressionParser::read_list() {
  expect_sign("[");
  std::vector<Expression> items;
  while (!is_sign("]")) {
    if (!items.empty()) expect_sign(",");
    if (is_sign("]")) break;
    items.push_back(read_expression());
  }
  expect_sign("]");
  return make(ExpressionKind::kList, std::move(items));
}

Expression ExpressionParser::read_dict() {
  expect_sign("{");
  std::vector<Expression> items;
  while (!is_sign("}")) {
    if (!items.empty()) expect_sign(",");
    if (is_sign("}")) break;
    items.push_back(read_expression());
    expect_sign(":");
    items.push_back(read_expression());
  }
  expect_sign("}");
  return make(ExpressionKind::kDict, std::move(items));
}

// ---- what stands behind a value --------------------------------------------------------------

Expression ExpressionParser::read_postfix(Expression value) {
  while (true) {
    if (is_sign(".") || is_sign("[")) {
      value = read_subscript(std::move(value));
    } else if (is_sign("(")) {
      value = make(ExpressionKind::kCall, list_of(std::move(value)));
      read_arguments(value);
    } else {
      return value;
    }
  }
}

Expression ExpressionParser::read_filters(Expression value) {
  while (true) {
    if (take_sign("|")) {
      value = read_filter(std::move(value));
    } else if (take_word("is")) {
      value = read_test(std::move(value));
    } else if (is_sign("(")) {
      value = make(ExpressionKind::kCall, list_of(std::move(value)));
      read_arguments(value);
    } else {
      return value;
    }
  }
}

Expression ExpressionParser::read_subscript(Expression value) {
  if (take_sign(".")) {
    if (token().kind == TokenKind::kInteger) {
      Expression index = make(ExpressionKind::kConstant);
      index.constant = Value(take().integer);
      return make(ExpressionKind::kSubscript, list_of(std::move(value), std::move(index)));
    }
    std::string name = expect(TokenKind::kName, "a name or a number behind '.'").text;
    return make(ExpressionKind::kAttribute, list_of(std::move(value)), std::move(name));
  }
  expect_sign("[");
  const auto is_bound = [&] { return !is_sign(":") && !is_sign("]") && !is_sign(","); };
  const auto bound = [&] {
    if (is_bound()) return read_expression();
    Expression none = make(ExpressionKind::kConstant);
    none.constant = Value(None{});
    return none;
  };
  if (is_sign("]")) fail("an expression");
  auto parts = list_of(std::move(value), bound());
  const bool is_slice = take_sign(":");
  if (is_slice) {
    parts.push_back(bound());
    take_sign(":");
    parts.push_back(bound());
  }
  if (is_sign(",")) work().refuse("a subscript of several parts");
  expect_sign("]");
  return make(is_slice ? ExpressionKind::kSlice : ExpressionKind::kSubscript, std::move(parts));
}

Expression ExpressionParser::read_filter(Expression value) {
  std::string name = expect(TokenKind::kName, "the name of a filter").text;
  while (take_sign(".")) name += "." + expect(TokenKind::kName, "a name").text;
  Expression filter = make(ExpressionKind::kFilter, list_of(std::move(value)), std::move(name));
  if (is_sign("(")) read_arguments(filter);
  return filter;
}

Expression ExpressionParser::read_test(Expression value) {
  const bool is_negated = take_word("not");
  std::string name = expect(TokenKind::kName, "the name of a test").text;
  while (take_sign(".")) name += "." + expect(TokenKind::kName, "a name").text;
  Expression test = make(ExpressionKind::kTest, list_of(std::move(value)), std::move(name));
  const TokenKind kind = token().kind;
  const bool is_value = kind == TokenKind::kName || kind == TokenKind::kString ||
                        kind == TokenKind::kInteger || kind == TokenKind::kFloat || is_sign("[") ||
                        is_sign("{");
  if (is_sign("(")) {
    read_arguments(test);
  } else if (is_value && !is_word("else") && !is_word("or") && !is_word("and")) {
    if (is_word("is")) fail("one test at a time");
    auto parts = std::move(test.parts);
    parts.push_back(read_postfix(read_primary()));
    test = make(ExpressionKind::kTest, std::move(parts), std::move(test.name));
  }
  if (is_negated) return make(ExpressionKind::kNot, list_of(std::move(test)));
  return test;
}

void ExpressionParser::read_arguments(Expression& call) {
  expect_sign("(");
  auto parts = std::move(call.parts);
  std::vector<std::string> names;
  for (bool is_first = true; !is_sign(")"); is_first = false) {
    if (!is_first) expect_sign(",");
    if (is_sign(")")) break;
    if (is_sign("*") || is_sign("**")) work().refuse("arguments with * or **");
    const bool has_name = token().kind == TokenKind::kName &&
                          following().kind == TokenKind::kSign && following().text == "=";
    if (has_name) {
      names.push_back(take().text);
      take();
    } else if (!names.empty()) {
      fail("an argument with a name behind one with a name");
    }
    parts.push_back(read_expression());
  }
  expect_sign(")");
  call = make(call.kind, std::move(parts), std::move(call.name));
  call.names = std::move(names);
}

// ---- targets ---------------------------------------------------------------------------------

Expression ExpressionParser::read_target(bool with_attribute) {
  const auto read_one = [&] {
    Expression one = read_primary();
    check_target(one);
    if (with_attribute && one.kind == ExpressionKind::kName && take_sign(".")) {
      std::string name = expect(TokenKind::kName, "the name of an attribute").text;
      return make(ExpressionKind::kAttribute, list_of(std::move(one)), std::move(name));
    }
    return one;
  };
  std::vector<Expression> targets;
  bool is_tuple = false;
  while (!ends_tuple() && !is_word("in")) {
    targets.push_back(read_one());
    if (!take_sign(",")) break;
    is_tuple = true;
  }
  if (targets.empty()) fail("a name to assign to");
  if (is_tuple) return make(ExpressionKind::kTuple, std::move(targets));
  return std::move(targets.front());
}

void ExpressionParser::check_target(const Expression& target) {
  if (target.kind == ExpressionKind::kTuple) {
    for (const Expression& part : target.parts) check_target(part);
  } else if (target.kind != ExpressionKind::kName) {
    fail("a name to assign to");
  } else if (target.name == "loop") {
    work().refuse("an assignment to 'loop'");
  }
}

}  // namespace wavroute::chat
