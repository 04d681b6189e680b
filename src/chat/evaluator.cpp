#include "chat/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/printable.h"
#include "chat/arithmetic.h"
#include "chat/filters.h"
#include "chat/functions.h"
#include "chat/methods.h"
#include "chat/operators.h"
#include "chat/value_tests.h"
#include "chat/value_text.h"

namespace wavroute::chat {

std::string Evaluator::print(const Program& program) {
  static_cast<void>(run_inner(program.body, program.late));
  return std::move(output_);
}

void Evaluator::print(std::string_view text) {
  work_.spend_text(text.size());
  output_ += text;
  if (output_.size() > kMostTextBytes) work_.spend_text(output_.size());
}

// ---- statements ------------------------------------------------------------------------------

Evaluator::Flow Evaluator::run(const Body& body) {
  for (const Statement& statement : body) {
    work_.set_line(statement.line);
    work_.spend(kOperation);
    if (const Flow flow = run(statement); flow != Flow::kEnd) return flow;
  }
  return Flow::kEnd;
}

Evaluator::Flow Evaluator::run(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kText:
      print(statement.text);
      return Flow::kEnd;
    case StatementKind::kPrint:
      print(to_text(evaluate(statement.value), work_));
      return Flow::kEnd;
    case StatementKind::kSet:
      assign(statement.target, evaluate(statement.value));
      return Flow::kEnd;
    case StatementKind::kSetBlock:
      return run_set_block(statement);
    case StatementKind::kFor:
      return run_for(statement);
    case StatementKind::kIf:
      return run_if(statement);
    case StatementKind::kGeneration:
      return run_inner(statement.body, statement.late_in_body);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      break;
  }
  return Flow::kContinue;
}

Evaluator::Flow Evaluator::run_inner(const Body& body, const std::vector<std::string>& late) {
  scopes_.push_back({&late});
  const Flow flow = run(body);
  scopes_.pop_back();
  return flow;
}

Evaluator::Flow Evaluator::run_if(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (is_true(evaluate(branch.condition))) return run(branch.body);
  }
  return run(statement.otherwise);
}

Values Evaluator::loop_items(const Statement& statement) {
  Values items = items_of(evaluate(statement.value), work_);
  if (statement.conditions.empty()) return items;
  Values passed;
  ++conditions_;
  for (Value& item : items) {
    scopes_.push_back({});
    assign(statement.target, std::move(item));
    // Where a condition stands, what two names take of a list comes back as a tuple.
    if (is_true(evaluate(statement.conditions.front()))) {
      passed.push_back(evaluate(statement.target));
    }
    scopes_.pop_back();
  }
  --conditions_;
  return passed;
}

// What an iteration sets is gone with it.
Evaluator::Flow Evaluator::run_for(const Statement& statement) {
  const auto items = std::make_shared<const Values>(loop_items(statement));
  bool has_completed = false;  // an iteration, without `continue` and `break`
  for (size_t i = 0; i < items->size(); ++i) {
    work_.set_line(statement.line);
    work_.spend(kOperation);
    scopes_.push_back(
        {&statement.late_in_body, {{"loop", std::make_shared<const Loop>(Loop{items, i})}}});
    assign(statement.target, (*items)[i]);
    const Flow flow = run(statement.body);
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
    has_completed = has_completed || flow == Flow::kEnd;
  }
  return has_completed ? Flow::kEnd : run_inner(statement.otherwise, statement.late_in_otherwise);
}

Evaluator::Flow Evaluator::run_set_block(const Statement& statement) {
  std::string outer = std::exchange(output_, {});
  const Flow flow = run_inner(statement.body, statement.late_in_body);
  std::string text = std::exchange(output_, std::move(outer));
  if (flow == Flow::kEnd) assign(statement.target, std::move(text));
  return flow;
}

void Evaluator::assign(const Expression& target, Value value) {
  if (target.kind == ExpressionKind::kName) {
    scopes_.back().variables.insert_or_assign(target.name, std::move(value));
    return;
  }
  if (target.kind == ExpressionKind::kAttribute) {
    const Value object = look_up(target.parts.front().name);
    if (object.names() == nullptr) work_.fail("a namespace to assign to", kind_of(object));
    set_attribute(*object.names(), target.name, std::move(value), work_);
    return;
  }
  Values items = items_of(value, work_);
  if (items.size() != target.parts.size()) {
    work_.fail(fmt::format("{} values to assign", target.parts.size()),
               std::to_string(items.size()));
  }
  for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], std::move(items[i]));
}

// ---- expressions -----------------------------------------------------------------------------

Value Evaluator::evaluate(const Expression& expression) {
  work_.spend(kOperation);
  const size_t line = work_.line();
  work_.set_line(expression.line);
  Value value = evaluate_inner(expression);
  work_.set_line(line);
  return value;
}

Value Evaluator::evaluate_inner(const Expression& expression) {
  const auto part = [&](size_t index) { return evaluate(expression.parts[index]); };
  switch (expression.kind) {
    case ExpressionKind::kConstant:
      return expression.constant;
    case ExpressionKind::kName:
      return look_up(expression.name);
    case ExpressionKind::kTuple:
      return make_sequence(SequenceKind::kTuple, evaluate_all(expression.parts), work_);
    case ExpressionKind::kList:
      return make_list(evaluate_all(expression.parts), work_);
    case ExpressionKind::kDict:
      return make_dict_of(expression);
    case ExpressionKind::kAttribute:
      return attribute_of(expression);
    case ExpressionKind::kSubscript: {
      const Value value = part(0);
      return subscript(value, part(1), work_);
    }
    case ExpressionKind::kSlice: {
      const Values parts = evaluate_all(expression.parts);
      return slice(parts[0], parts[1], parts[2], parts[3], work_);
    }
    case ExpressionKind::kCall:
      return call(expression);
    case ExpressionKind::kFilter: {
      const Value value = part(0);
      return apply_filter(expression.name, value, arguments_of(expression), work_);
    }
    case ExpressionKind::kTest: {
      const Value value = part(0);
      return passes(expression.name, value, arguments_of(expression), work_);
    }
    case ExpressionKind::kNot:
      return !is_true(part(0));
    case ExpressionKind::kNegative:
      return negated(part(0), work_);
    case ExpressionKind::kPositive: {
      Value value = part(0);
      if (!value.is_number()) work_.fail("a number behind +", kind_of(value));
      return value.is_integer() ? Value(value.integer()) : value;
    }
    case ExpressionKind::kAnd: {
      Value left = part(0);
      return is_true(left) ? part(1) : left;
    }
    case ExpressionKind::kOr: {
      Value left = part(0);
      return is_true(left) ? left : part(1);
    }
    case ExpressionKind::kConditional:
      if (is_true(part(0))) return part(1);
      return expression.parts.size() > 2 ? part(2) : Value();
    case ExpressionKind::kCompare:
      return compare_chain(expression);
    case ExpressionKind::kConcatenate:
      return concatenate(expression);
    case ExpressionKind::kCalculate:
      break;
  }
  const Value left = part(0);
  return calculate(expression.name, left, part(1), work_);
}

Value Evaluator::look_up(const std::string& name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto& variables = scope->variables;
    if (const auto found = variables.find(name); found != variables.end()) {
      // Jinja looks at the items of a loop one by one, while its body runs.
      if (conditions_ > 0 && found->second.names() != nullptr) {
        work_.refuse("a namespace in the condition of a loop");
      }
      return found->second;
    }
    if (scope->late != nullptr && std::ranges::find(*scope->late, name) != scope->late->end()) {
      work_.refuse(fmt::format("{}, which is set further down", printable(name)));
    }
  }
  if (const auto found = variables_.find(name); found != variables_.end()) return found->second;
  if (auto function = find_function(name, work_)) return *std::move(function);
  return Undefined{std::make_shared<const std::string>(name)};
}

// A method comes before a key of the same name.
Value Evaluator::attribute_of(const Expression& expression) {
  const Value value = evaluate(expression.parts.front());
  const std::string& name = expression.name;
  const Dict* dict = value.dict();
  Value own = attribute(value, name, work_);
  if (dict == nullptr || !own.is_undefined()) return own;
  work_.spend(dict->entries.size());
  const Value* found = dict->find(name);
  return found == nullptr ? own : *found;
}

Value Evaluator::call(const Expression& expression) {
  const Value callee = evaluate(expression.parts.front());
  const Arguments arguments = arguments_of(expression);
  const Function* function = callee.function();
  if (function == nullptr) work_.fail("a function or a method", kind_of(callee));
  if (function->self != nullptr) return call_method(*function, arguments, work_);
  return call_function(function->name, arguments, now_, work_);
}

// a < b < c: every part is evaluated once, up to the first comparison that fails.
Value Evaluator::compare_chain(const Expression& expression) {
  Value left = evaluate(expression.parts.front());
  for (size_t i = 0; i < expression.names.size(); ++i) {
    Value right = evaluate(expression.parts[i + 1]);
    if (!compare(expression.names[i], left, right, work_)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::concatenate(const Expression& expression) {
  std::string text;
  for (const Expression& part : expression.parts) text += to_text(evaluate(part), work_);
  work_.spend_text(text.size());
  return text;
}

Value Evaluator::make_dict_of(const Expression& expression) {
  Values parts = evaluate_all(expression.parts);
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i + 1 < parts.size(); i += 2) {
    entries.emplace_back(std::move(parts[i]), std::move(parts[i + 1]));
  }
  return make_dict(std::move(entries), work_);
}

Values Evaluator::evaluate_all(const std::vector<Expression>& parts) {
  Values values;
  values.reserve(parts.size());
  for (const Expression& part : parts) values.push_back(evaluate(part));
  return values;
}

Arguments Evaluator::arguments_of(const Expression& expression) {
  const auto& parts = expression.parts;
  const size_t named = parts.size() - expression.names.size();
  Arguments arguments;
  for (size_t i = 1; i < parts.size(); ++i) {
    Value value = evaluate(parts[i]);
    if (i < named) {
      arguments.by_place.push_back(std::move(value));
    } else {
      arguments.by_name.emplace_back(expression.names[i - named], std::move(value));
    }
  }
  return arguments;
}

}  // namespace wavroute::chat
