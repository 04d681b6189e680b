// Tests: value is name(arguments).
#pragma once

#include <string_view>

#include "chat/arguments.h"
#include "chat/value.h"

namespace wavroute::chat {

// UserError for a test that is not in the subset.
[[nodiscard]] bool passes(std::string_view name, const Value& value, const Arguments& arguments,
                          Work& work);

}  // namespace wavroute::chat
