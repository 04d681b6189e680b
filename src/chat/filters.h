// Filters: value|name(arguments).
#pragma once

#include <string_view>

#include "chat/arguments.h"
#include "chat/value.h"

namespace wavroute::chat {

// UserError for a filter that is not in the subset.
[[nodiscard]] Value apply_filter(std::string_view name, const Value& value,
                                 const Arguments& arguments, Work& work);

}  // namespace wavroute::chat
