// Attributes and methods of values.
#pragma once

#include <string_view>

#include "chat/arguments.h"
#include "chat/value.h"

namespace wavroute::chat {

// A method of the value, a name of a namespace, a part of `loop`; undefined where it has none.
// UserError for what Python has and the subset doesn't, and where the value is undefined.
[[nodiscard]] Value attribute(const Value& value, std::string_view name, Work& work);

// Calls a method that attribute() gave.
[[nodiscard]] Value call_method(const Function& method, const Arguments& arguments, Work& work);

// str.title() where `separators` is empty: letters behind what is no letter become capitals. Else
// those behind one of `separators`. UserError beyond ASCII.
[[nodiscard]] std::string titled(std::string_view text, std::string_view separators, Work& work);
// UserError beyond ASCII, where the case of letters depends on Python's Unicode.
[[nodiscard]] std::string in_upper_case(std::string_view text, Work& work);
[[nodiscard]] std::string in_lower_case(std::string_view text, Work& work);
[[nodiscard]] std::string capitalized(std::string_view text, Work& work);
[[nodiscard]] Value joined(std::string_view separator, const Values& items, Work& work);

}  // namespace wavroute::chat
