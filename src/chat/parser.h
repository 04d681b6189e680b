// Reads the statements of a template.
#pragma once

#include <string_view>

#include "chat/syntax.h"

namespace wavroute::chat {

// UserError for a syntax error, and for a statement outside the subset.
[[nodiscard]] Program parse_template(std::string_view source, Work& work);

}  // namespace wavroute::chat
