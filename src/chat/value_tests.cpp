#include "chat/value_tests.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/printable.h"
#include "chat/arithmetic.h"
#include "chat/operators.h"
#include "chat/text.h"
#include "chat/value_text.h"

namespace wavroute::chat {
namespace {

using Check = std::function<bool(const Value& value, Work& work)>;

int64_t remainder_of(const Value& value, int64_t divisor, Work& work) {
  const Value rest = calculate("%", value, divisor, work);
  if (!rest.is_integer()) work.refuse("odd, even and divisibleby of a float");
  return rest.integer();
}

bool has_length(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.is_text() || value.is_undefined() || value.dict() != nullptr ||
         (sequence != nullptr && sequence->kind <= SequenceKind::kRange);
}

bool has_items(const Value& value) {
  return has_length(value) || value.sequence() != nullptr || value.loop() != nullptr;
}

// islower(), isupper(): whether there are letters, and none of the other case.
bool is_in_case(const Value& value, bool is_lower, Work& work) {
  const std::string text = to_text(value, work);
  if (!is_ascii(text)) work.refuse("upper and lower case beyond ASCII");
  const std::string same = is_lower ? lower(text) : upper(text);
  const std::string other = is_lower ? upper(text) : lower(text);
  return text == same && text != other;
}

bool is_callable(const Value& value, Work& work) {
  if (value.loop() != nullptr) work.refuse("'callable' of a loop");
  return value.is_undefined() || value.function() != nullptr;
}

// Tests without arguments.
const std::map<std::string_view, Check>& checks() {
  static const std::map<std::string_view, Check> kChecks = {
      {"defined", [](const Value& v, Work&) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v, Work&) { return v.is_undefined(); }},
      {"none", [](const Value& v, Work&) { return v.is_none(); }},
      {"boolean", [](const Value& v, Work&) { return v.is<bool>(); }},
      {"true", [](const Value& v, Work&) { return v.is<bool>() && is_true(v); }},
      {"false", [](const Value& v, Work&) { return v.is<bool>() && !is_true(v); }},
      {"integer", [](const Value& v, Work&) { return v.is<int64_t>(); }},
      {"float", [](const Value& v, Work&) { return v.is<double>(); }},
      {"number", [](const Value& v, Work&) { return v.is_number(); }},
      {"string", [](const Value& v, Work&) { return v.is_text(); }},
      {"mapping", [](const Value& v, Work&) { return v.dict() != nullptr; }},
      {"sequence", [](const Value& v, Work&) { return has_length(v); }},
      {"iterable", [](const Value& v, Work&) { return has_items(v); }},
      {"callable", is_callable},
      {"odd", [](const Value& v, Work& work) { return remainder_of(v, 2, work) == 1; }},
      {"even", [](const Value& v, Work& work) { return remainder_of(v, 2, work) == 0; }},
      {"lower", [](const Value& v, Work& work) { return is_in_case(v, true, work); }},
      {"upper", [](const Value& v, Work& work) { return is_in_case(v, false, work); }},
  };
  return kChecks;
}

// Words and signs of comparisons.
const std::map<std::string_view, std::string_view>& comparisons() {
  static const std::map<std::string_view, std::string_view> kSigns = {
      {"==", "=="},      {"eq", "=="}, {"equalto", "=="}, {"!=", "!="},
      {"ne", "!="},      {">", ">"},   {"gt", ">"},       {"greaterthan", ">"},
      {">=", ">="},      {"ge", ">="}, {"<", "<"},        {"lt", "<"},
      {"lessthan", "<"}, {"<=", "<="}, {"le", "<="},      {"in", "in"},
  };
  return kSigns;
}

// Whether both are the same object: known for those that there is one of.
bool is_same(const Value& value, const Value& other, Work& work) {
  const auto is_single = [](const Value& v) { return v.is_none() || v.is<bool>(); };
  if (!is_single(value) && !is_single(other)) work.refuse("'sameas' of " + kind_of(other));
  return value.any().index() == other.any().index() && is_true(value) == is_true(other);
}

}  // namespace

bool passes(std::string_view name, const Value& value, const Arguments& arguments, Work& work) {
  const std::string callee = "the test " + printable(name);
  if (const auto found = checks().find(name); found != checks().end()) {
    const Parameters given(arguments, callee, {}, 0, work);
    return found->second(value, work);
  }
  const auto sign = comparisons().find(name);
  if (sign == comparisons().end() && name != "sameas" && name != "divisibleby") {
    work.refuse(callee);
  }
  const Parameters given(arguments, callee, {""}, 1, work);
  const Value& other = *given.at(0);
  if (name == "sameas") return is_same(value, other, work);
  if (name == "divisibleby") return remainder_of(value, given.integer(0, 1), work) == 0;
  return compare(sign->second, value, other, work);
}

}  // namespace wavroute::chat
