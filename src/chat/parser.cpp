#include "chat/parser.h"

#include <algorithm>
#include <array>

#include "base/printable.h"
#include "chat/expression_parser.h"
#include "chat/late_names.h"
#include "chat/lexer.h"

namespace wavroute::chat {
namespace {

using Words = std::initializer_list<std::string_view>;

class Parser {
 public:
  Parser(std::span<const Token> tokens, Work& work) : reader_(tokens, work), work_(work) {}

  Body read() { return read_body({}); }

 private:
  // Up to a statement of `ends`, whose name is the next token then; without any, to the end of the
  // template.
  Body read_body(Words ends) {
    if (++level_ > kMostNesting) work_.fail_nesting();
    Body body;
    while (true) {
      const Token& token = reader_.token();
      work_.set_line(token.line);
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() > 0) reader_.fail(printable(*(ends.end() - 1)));
        break;
      }
      if (token.kind == TokenKind::kText) {
        Statement& text = add(body, StatementKind::kText);
        text.text = reader_.take().text;
      } else if (token.kind == TokenKind::kPrintBegin) {
        reader_.take();
        Statement& print = add(body, StatementKind::kPrint);
        print.value = reader_.read_tuple();
        reader_.expect(TokenKind::kPrintEnd, "the end of the tag, }}");
      } else {
        reader_.take();
        if (std::ranges::any_of(ends, [&](auto end) { return reader_.is_word(end); })) break;
        read_statement(body);
        reader_.expect(TokenKind::kBlockEnd, "the end of the tag, %}");
      }
    }
    --level_;
    return body;
  }

  Statement& add(Body& body, StatementKind kind) {
    Statement& statement = body.emplace_back();
    statement.kind = kind;
    statement.line = work_.line();
    return statement;
  }

  // The body of a statement whose tag ends here; the end's name is taken, too, and returned.
  std::string read_inner(Body& body, Words ends) {
    reader_.take_sign(":");
    reader_.expect(TokenKind::kBlockEnd, "the end of the tag, %}");
    body = read_body(ends);
    return reader_.take().text;
  }

  void read_statement(Body& body) {
    const size_t line = reader_.token().line;
    work_.set_line(line);
    const std::string name = reader_.expect(TokenKind::kName, "the name of a statement").text;
    const auto begin = [&](StatementKind kind) -> Statement& {
      Statement& statement = add(body, kind);
      statement.line = line;
      return statement;
    };
    if (name == "if") return read_if(begin(StatementKind::kIf));
    if (name == "for") return read_for(begin(StatementKind::kFor));
    if (name == "set") return read_set(begin(StatementKind::kSet));
    if (name == "generation") {
      const size_t loops = std::exchange(loops_, 0);  // it is a function: no loop ends from in it
      Statement& statement = begin(StatementKind::kGeneration);
      read_inner(statement.body, {"endgeneration"});
      statement.late_in_body = late_names(statement.body, nullptr);
      loops_ = loops;
      return;
    }
    work_.set_line(line);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) work_.fail("a loop around " + printable(name), "none");
      begin(name == "break" ? StatementKind::kBreak : StatementKind::kContinue);
      return;
    }
    constexpr std::array<std::string_view, 6> kInner = {"else",   "elif",   "endif",
                                                        "endfor", "endset", "endgeneration"};
    if (std::ranges::find(kInner, name) != kInner.end()) {
      work_.fail("a statement that begins here", printable(name));
    }
    work_.refuse("the statement " + printable(name));
  }

  void read_if(Statement& statement) {
    std::string end;
    do {
      Branch& branch = statement.branches.emplace_back();
      branch.condition = reader_.read_tuple(/*with_condition=*/false);
      end = read_inner(branch.body, {"elif", "else", "endif"});
    } while (end == "elif");
    if (end == "else") read_inner(statement.otherwise, {"endif"});
  }

  void read_for(Statement& statement) {
    statement.target = reader_.read_target(/*with_attribute=*/false);
    if (!reader_.take_word("in")) reader_.fail("'in'");
    statement.value = reader_.read_tuple(/*with_condition=*/false);
    if (reader_.take_word("if")) statement.conditions.push_back(reader_.read_expression());
    if (reader_.is_word("recursive")) work_.refuse("a recursive loop");
    ++loops_;
    const std::string end = read_inner(statement.body, {"else", "endfor"});
    --loops_;
    statement.late_in_body = late_names(statement.body, &statement.target);
    if (end == "else") read_inner(statement.otherwise, {"endfor"});
    statement.late_in_otherwise = late_names(statement.otherwise, nullptr);
  }

  void read_set(Statement& statement) {
    statement.target = reader_.read_target(/*with_attribute=*/true);
    if (reader_.take_sign("=")) {
      statement.value = reader_.read_tuple();
      return;
    }
    if (reader_.is_sign("|")) work_.refuse("a filter of a set block");
    statement.kind = StatementKind::kSetBlock;
    read_inner(statement.body, {"endset"});
    statement.late_in_body = late_names(statement.body, nullptr);
  }

  ExpressionParser reader_;
  Work& work_;
  size_t level_ = 0;
  size_t loops_ = 0;  // around the statement
};

}  // namespace

Program parse_template(std::string_view source, Work& work) {
  const std::vector<Token> tokens = read_tokens(source, work);
  Program program;
  program.body = Parser(tokens, work).read();
  program.late = late_names(program.body, nullptr);
  return program;
}

}  // namespace wavroute::chat
