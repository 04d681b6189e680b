// The filters that look at every item of a sequence: map, select, reject, selectattr, rejectattr.
#pragma once

#include <string_view>

#include "chat/arguments.h"
#include "chat/value.h"

namespace wavroute::chat {

// A generator.
[[nodiscard]] Value map_items(const Value& value, const Arguments& arguments, Work& work);
// `name`: of the filter.
[[nodiscard]] Value select_items(std::string_view name, const Value& value,
                                 const Arguments& arguments, Work& work);

// item.a.b for the path "a.b"; a part of digits is an index. `path`: a text or an integer.
[[nodiscard]] Value part_at(const Value& item, const Value& path, Work& work);

}  // namespace wavroute::chat
