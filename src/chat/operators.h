// Comparisons, items and subscripts, by Python's rules. Where Python raises an error, and where its
// result could not be given exactly, that is a UserError.
#pragma once

#include <string_view>

#include "chat/value.h"

namespace wavroute::chat {

[[nodiscard]] bool are_equal(const Value& left, const Value& right, Work& work);
// <0, 0 or >0; of two numbers or two texts.
[[nodiscard]] int ordered(const Value& left, const Value& right, Work& work);
// == != < <= > >=, in, not in.
[[nodiscard]] bool compare(std::string_view sign, const Value& left, const Value& right,
                           Work& work);
[[nodiscard]] bool contains(const Value& container, const Value& item, Work& work);

// What a loop goes over: the characters of a text, the keys of a dict. Reads a generator up.
[[nodiscard]] Values items_of(const Value& value, Work& work);
// len().
[[nodiscard]] int64_t length_of(const Value& value, Work& work);

// value[key], or a method of this name; undefined where there is neither.
[[nodiscard]] Value subscript(const Value& value, const Value& key, Work& work);
// value[from:to:step]; each is an integer or none.
[[nodiscard]] Value slice(const Value& value, const Value& from, const Value& to, const Value& step,
                          Work& work);

}  // namespace wavroute::chat
