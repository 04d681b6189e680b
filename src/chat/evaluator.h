// Runs a template.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "chat/arguments.h"
#include "chat/syntax.h"

namespace wavroute::chat {

class Evaluator {
 public:
  using Variables = std::map<std::string, Value, std::less<>>;

  Evaluator(Variables variables, std::chrono::system_clock::time_point now, Work& work)
      : variables_(std::move(variables)), now_(now), work_(work) {}

  // What the template prints.
  [[nodiscard]] std::string print(const Program& program);

 private:
  // What is set inside a loop, a block or the whole template.
  struct Scope {
    const std::vector<std::string>* late = nullptr;
    Variables variables = {};
  };
  // How a body ended.
  enum class Flow : uint8_t { kEnd, kBreak, kContinue };

  [[nodiscard]] Flow run(const Body& body);
  [[nodiscard]] Flow run(const Statement& statement);
  [[nodiscard]] Flow run_if(const Statement& statement);
  [[nodiscard]] Flow run_for(const Statement& statement);
  [[nodiscard]] Flow run_set_block(const Statement& statement);
  // The items of a for that pass its condition.
  [[nodiscard]] Values loop_items(const Statement& statement);
  // In a scope of its own.
  [[nodiscard]] Flow run_inner(const Body& body, const std::vector<std::string>& late);
  void print(std::string_view text);
  void assign(const Expression& target, Value value);

  [[nodiscard]] Value evaluate(const Expression& expression);
  [[nodiscard]] Value evaluate_inner(const Expression& expression);
  [[nodiscard]] Value look_up(const std::string& name);
  [[nodiscard]] Value attribute_of(const Expression& expression);
  [[nodiscard]] Value call(const Expression& expression);
  [[nodiscard]] Value compare_chain(const Expression& expression);
  [[nodiscard]] Value concatenate(const Expression& expression);
  [[nodiscard]] Value make_dict_of(const Expression& expression);
  [[nodiscard]] Values evaluate_all(const std::vector<Expression>& parts);
  // Of a call, a filter or a test: everything behind its first part.
  [[nodiscard]] Arguments arguments_of(const Expression& expression);

  Variables variables_;        // given to the template
  std::vector<Scope> scopes_;  // the innermost last
  std::chrono::system_clock::time_point now_;
  Work& work_;
  std::string output_;
  size_t conditions_ = 0;  // of loops, around what is evaluated
};

}  // namespace wavroute::chat
