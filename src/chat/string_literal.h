// The escapes of a text in quotes.
#pragma once

#include <string>
#include <string_view>

#include "chat/work.h"

namespace wavroute::chat {

// What stands between the quotes, with Python's escapes replaced. UserError for one that is wrong
// and for what is no character of UTF-8 (surrogates).
[[nodiscard]] std::string unescaped(std::string_view literal, Work& work);

}  // namespace wavroute::chat
