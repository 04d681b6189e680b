// + - * / // % ** by Python's rules, of numbers, texts and lists.
#pragma once

#include <string_view>

#include "chat/value.h"

namespace wavroute::chat {

// UserError where Python raises an error, and where the result could not be given exactly.
[[nodiscard]] Value calculate(std::string_view sign, const Value& left, const Value& right,
                              Work& work);
[[nodiscard]] Value negated(const Value& value, Work& work);

// UserError: values that an operator doesn't take.
[[noreturn]] void fail_sign(std::string_view sign, const Value& left, const Value& right,
                            Work& work);

}  // namespace wavroute::chat
