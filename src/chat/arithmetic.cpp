#include "chat/arithmetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace wavroute::chat {
namespace {

// How often a text may be repeated.
constexpr int64_t kMostRepeated = 100000;

Value finite(double number, Work& work) {
  if (!std::isfinite(number)) work.refuse("a number that is not finite");
  return number;
}

// Of integers within 64 bits; `overflows` is of the builtin that made it.
Value whole(bool overflows, int64_t number, Work& work) {
  if (overflows) work.refuse("an integer beyond 64 bits");
  return number;
}

// Jinja writes a negative constant into Python code without brackets: -1 ** x is then -(1 ** x).
Value power(const Value& left, const Value& right, Work& work) {
  if (left.number() < 0.0) work.refuse("a negative number before **");
  if (!left.is_integer() || !right.is_integer() || right.integer() < 0) {
    if (left.number() == 0.0 && right.number() < 0.0) work.fail("a divisor", "0");
    return finite(std::pow(left.number(), right.number()), work);
  }
  const int64_t base = left.integer();
  if (base <= 1) return right.integer() == 0 ? int64_t{1} : base;
  int64_t result = 1;
  for (int64_t i = 0; i < right.integer(); ++i) {
    if (__builtin_mul_overflow(result, base, &result)) work.refuse("an integer beyond 64 bits");
  }
  return result;
}

// Rounded towards minus infinity, as Python divides.
Value divided_down(const Value& left, const Value& right, bool is_remainder, Work& work) {
  if (right.number() == 0.0) work.fail("a divisor", "0");
  if (left.is_integer() && right.is_integer()) {
    const int64_t a = left.integer(), b = right.integer();
    if (b == -1)
      return is_remainder ? int64_t{0} : whole(a == INT64_MIN, a == INT64_MIN ? 0 : -a, work);
    const int64_t rest = a % b;
    const bool is_below = rest != 0 && (rest < 0) != (b < 0);
    return is_remainder ? (is_below ? rest + b : rest) : a / b - (is_below ? 1 : 0);
  }
  const double a = left.number(), b = right.number();
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0.0 && (rest < 0.0) != (b < 0.0)) {
    rest += b;
    quotient -= 1.0;
  } else if (rest == 0.0) {
    rest = std::copysign(0.0, b);
  }
  if (is_remainder) return finite(rest, work);
  if (quotient == 0.0) return finite(std::copysign(0.0, a / b), work);
  const double floor = std::floor(quotient);
  return finite(quotient - floor > 0.5 ? floor + 1.0 : floor, work);
}

Value of_integers(char sign, int64_t a, int64_t b, Work& work) {
  int64_t result = 0;
  const bool overflows = sign == '+'   ? __builtin_add_overflow(a, b, &result)
                         : sign == '-' ? __builtin_sub_overflow(a, b, &result)
                                       : __builtin_mul_overflow(a, b, &result);
  return whole(overflows, result, work);
}

Value of_numbers(std::string_view sign, const Value& left, const Value& right, Work& work) {
  if (sign == "**") return power(left, right, work);
  if (sign == "//" || sign == "%") return divided_down(left, right, sign == "%", work);
  const double a = left.number(), b = right.number();
  if (sign == "/") {
    if (b == 0.0) work.fail("a divisor", "0");
    constexpr int64_t kExact = int64_t{1} << 53;
    const auto is_exact = [](const Value& value) {
      return !value.is_integer() || (value.integer() <= kExact && value.integer() >= -kExact);
    };
    if (!is_exact(left) || !is_exact(right)) work.refuse("the division of such large integers");
    return finite(a / b, work);
  }
  if (left.is_integer() && right.is_integer()) {
    return of_integers(sign[0], left.integer(), right.integer(), work);
  }
  return finite(sign == "+" ? a + b : sign == "-" ? a - b : a * b, work);
}

Value repeated(const std::string& text, int64_t times, Work& work) {
  if (times > kMostRepeated) work.fail("a text that is repeated less often", std::to_string(times));
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  work.spend_text(text.size() * count);
  std::string result;
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

}  // namespace

void fail_sign(std::string_view sign, const Value& left, const Value& right, Work& work) {
  work.fail(fmt::format("values that {} takes", sign),
            fmt::format("{} and {}", kind_of(left), kind_of(right)));
}

Value calculate(std::string_view sign, const Value& left, const Value& right, Work& work) {
  if (left.is_number() && right.is_number()) return of_numbers(sign, left, right, work);
  if (sign == "+" && left.is_text() && right.is_text()) {
    work.spend_text(left.text().size() + right.text().size());
    return left.text() + right.text();
  }
  if (sign == "*" && left.is_text() && right.is_integer()) {
    return repeated(left.text(), right.integer(), work);
  }
  if (sign == "*" && left.is_integer() && right.is_text()) {
    return repeated(right.text(), left.integer(), work);
  }
  if (sign == "%" && left.is_text()) work.refuse("% of a text");
  const Sequence *first = left.sequence(), *second = right.sequence();
  if (sign == "+" && first != nullptr && second != nullptr && first->kind == second->kind &&
      first->kind <= SequenceKind::kTuple) {
    work.spend((first->items.size() + second->items.size()) * sizeof(Value));
    Values items = first->items;
    items.insert(items.end(), second->items.begin(), second->items.end());
    return make_sequence(first->kind, std::move(items), work);
  }
  if (sign == "*" && (first != nullptr || second != nullptr)) work.refuse("* of a list");
  if (sign == "-" && (first != nullptr || second != nullptr)) work.refuse("- of " + kind_of(left));
  fail_sign(sign, left, right, work);
}

Value negated(const Value& value, Work& work) {
  if (value.is<double>()) return -value.number();
  if (!value.is_integer()) work.fail("a number after -", kind_of(value));
  return of_integers('-', 0, value.integer(), work);
}

}  // namespace wavroute::chat
