// A template as its parser reads it: a tree of statements and expressions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chat/value.h"

namespace wavroute::chat {

enum class ExpressionKind : uint8_t {
  kConstant,
  kName,
  kTuple,
  kList,
  kDict,       // parts: key, value, key, ...
  kAttribute,  // parts: value
  kSubscript,  // parts: value, key
  kSlice,      // parts: value, from, to, step
  kCall,       // parts: callee, arguments
  kFilter,     // parts: value, arguments
  kTest,       // parts: value, arguments
  kNot,
  kNegative,
  kPositive,
  kAnd,
  kOr,
  kConditional,  // parts: condition, value, and the other value if there is one
  kCompare,      // parts: values, one more than names, the signs
  kConcatenate,
  kCalculate,  // parts: left, right
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  size_t line = 1;
  size_t depth = 1;  // levels of expressions in it, itself included
  std::string name;  // of a name, an attribute, a filter, a test; the sign of kCalculate
  Value constant;
  std::vector<Expression> parts;
  std::vector<std::string> names;  // of the last arguments; the signs of kCompare
};

enum class StatementKind : uint8_t {
  kText,
  kPrint,
  kSet,         // target = value
  kSetBlock,    // target = what body prints
  kFor,         // target, value, and the condition if there is one; otherwise
  kIf,          // branches; otherwise
  kGeneration,  // what the model writes: a scope, as a function's
  kBreak,
  kContinue,
};

struct Branch;

struct Statement {
  StatementKind kind = StatementKind::kText;
  size_t line = 1;
  std::string text;
  // kName, kTuple of targets, or kAttribute of a name (a namespace).
  Expression target;
  Expression value;
  std::vector<Expression> conditions;  // at most one
  std::vector<Branch> branches;
  std::vector<Statement> body, otherwise;
  std::vector<std::string> late_in_body, late_in_otherwise;  // late_names.h, of their scopes
};

using Body = std::vector<Statement>;

struct Branch {
  Expression condition;
  Body body;
};

struct Program {
  Body body;
  std::vector<std::string> late;
};

}  // namespace wavroute::chat
